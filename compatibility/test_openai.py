"""The openai package, unmodified."""

import json
from typing import Any

import openai
import pytest

LOCAL = "smollm2-135m"
PARAMETERS: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": PARAMETERS},
}
TOOL: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
MODELS = pytest.mark.parametrize("model", [LOCAL, "mock", "either"])


@pytest.fixture
def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0)


def test_models_are_listed_with_aliases(client: openai.OpenAI) -> None:
    assert {one.id for one in client.models.list()} >= {LOCAL, "mock", "either"}
    assert client.models.retrieve("either").id == "either"


@MODELS
def test_chat_whole_and_streamed(client: openai.OpenAI, model: str) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    whole = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=8, temperature=0
    )
    assert whole.choices[0].message.content
    assert whole.usage is not None
    stream = client.chat.completions.create(
        model=model, messages=messages, max_completion_tokens=8, temperature=0, stream=True
    )
    assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices)


@MODELS
def test_a_chat_calls_a_tool(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Weather in Oslo?"}],
        tools=[CHAT_TOOL],
        tool_choice="required",
        max_tokens=48,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert "city" in json.loads(call.function.arguments)


@MODELS
def test_a_schema_is_followed(client: openai.OpenAI, model: str) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"sky": {"enum": ["rain", "sun"]}},
        "required": ["sky"],
        "additionalProperties": False,
    }
    chat = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Weather?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": schema}},
        max_tokens=30,
    )
    assert json.loads(chat.choices[0].message.content or "")["sky"] in {"rain", "sun"}
    response = client.responses.create(
        model=model,
        input="Weather?",
        text={"format": {"type": "json_schema", "name": "w", "schema": schema}},
        max_output_tokens=30,
    )
    assert json.loads(response.output_text)["sky"] in {"rain", "sun"}


@MODELS
def test_responses_whole_and_streamed_and_continued(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input="Hi", max_output_tokens=16)
    assert first.output_text
    assert first.usage is not None
    stream = client.responses.create(
        model=model,
        input="More",
        previous_response_id=first.id,
        max_output_tokens=16,
        stream=True,
    )
    events = list(stream)
    assert events[0].type == "response.created"
    last = events[-1]
    assert last.type in {"response.completed", "response.incomplete"}
    assert last.response.output_text
    assert last.response.previous_response_id == first.id


def test_the_packages_own_stream_of_responses_ends_well(client: openai.OpenAI) -> None:
    with client.responses.stream(model="mock", input="Hi") as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        assert stream.get_final_response().output_text.strip() == "You said: Hi"


@MODELS
def test_a_response_calls_a_tool(client: openai.OpenAI, model: str) -> None:
    response = client.responses.create(
        model=model,
        input="Weather in Oslo?",
        tools=[TOOL],
        tool_choice="required",
        max_output_tokens=48,
    )
    [call] = [item for item in response.output if item.type == "function_call"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    last = client.responses.create(
        model=model, input=[result], previous_response_id=response.id, max_output_tokens=16
    )
    assert last.output_text


def test_embeddings(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model="all-minilm-l6-v2", input=["one", "two"]).data
    assert [len(one.embedding) for one in vectors] == [384, 384]


def test_an_image_is_refused_in_one_line_by_a_model_of_texts(client: openai.OpenAI) -> None:
    picture: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(openai.BadRequestError, match="text only"):
        client.chat.completions.create(
            model=LOCAL, messages=[{"role": "user", "content": [picture]}]
        )
    part: Any = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    with pytest.raises(openai.BadRequestError, match="text only"):
        client.responses.create(model=LOCAL, input=[{"role": "user", "content": [part]}])
