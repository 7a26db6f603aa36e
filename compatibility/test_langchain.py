"""LangChain's OpenAI integration."""

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

LOCAL = "smollm2-135m"
EACH = pytest.mark.parametrize("responses", [False, True])


class Sky(BaseModel):
    """The weather."""

    sky: str


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


def _model(base_url: str, model: str, *, responses: bool) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=base_url,
        api_key=SecretStr("unused"),
        model=model,
        use_responses_api=responses,
        max_retries=0,
        max_completion_tokens=24,
    )


@EACH
@pytest.mark.parametrize("model", [LOCAL, "mock"])
def test_invoke_and_stream(base_url: str, model: str, responses: bool) -> None:
    chat = _model(base_url, model, responses=responses)
    whole = chat.invoke("Say hello.")
    assert whole.text
    assert whole.usage_metadata is not None
    assert "".join(piece.text for piece in chat.stream("Say hello."))


@EACH
def test_a_tool_is_called_and_its_result_taken(base_url: str, responses: bool) -> None:
    chat = _model(base_url, "mock", responses=responses).bind_tools([weather])
    asked = chat.invoke("Weather in Oslo?")
    [call] = asked.tool_calls
    result = weather.invoke(call)
    messages = [("user", "Weather in Oslo?"), asked, result]
    assert "rain in Oslo" in chat.invoke(messages).text


@EACH
def test_structured_output(base_url: str, responses: bool) -> None:
    chat = _model(base_url, "mock", responses=responses)
    held = chat.with_structured_output(Sky, method="json_schema")
    assert held.invoke("Weather?") == Sky(sky="rain")


def test_embeddings(base_url: str) -> None:
    # The package sends token ids of OpenAI's own models unless it is told not to.
    vectors = OpenAIEmbeddings(
        base_url=base_url,
        api_key=SecretStr("unused"),
        model="all-minilm-l6-v2",
        check_embedding_ctx_length=False,
    )
    assert len(vectors.embed_query("one")) == 384
