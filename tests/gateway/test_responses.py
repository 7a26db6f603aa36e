"""/v1/responses as the unmodified openai package asks it."""

import asyncio
from typing import Any

import openai
import pytest
from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished
from steelyard.errors import PoolUnavailableError
from steelyard.pools.backend import ToolCallDelta
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
CALLING = ScriptedAnswer(
    pieces=("Let me look. ",),
    tool_calls=(
        ToolCallDelta(index=0, id="call_1", name="weather", arguments='{"city":'),
        ToolCallDelta(index=0, arguments='"Oslo"}'),
        ToolCallDelta(index=1, id="call_2", name="weather", arguments="{}"),
    ),
    finish_reason="tool_calls",
)


async def _stream(rig: Rig, **fields: Any) -> list[Any]:
    stream = await rig.openai.responses.create(model="scripted", input="Hi", stream=True, **fields)
    return [event async for event in stream]


async def test_a_text_is_answered_with_usage_and_cost(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(cached_tokens=3),))
    async with start(pool) as rig:
        answer = await rig.openai.responses.create(
            model="scripted",
            input="Hi",
            instructions="Be brief.",
            temperature=0.5,
            max_output_tokens=99,
            metadata={"run": "7"},
        )
        assert answer.output_text == "Hello world"
        assert answer.status == "completed"
        assert answer.metadata == {"run": "7"}
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
        assert answer.usage.input_tokens_details.cached_tokens == 3
        [finished] = rig.of_kind(AttemptFinished)
        assert answer.model_extra is not None
        assert answer.model_extra["steelyard"]["cost_usd"] == finished.cost_usd
        [request] = pool.requests
        assert request.messages == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
        assert (request.temperature, request.max_output_tokens) == (0.5, 99)


async def test_a_stream_has_the_events_in_openais_order(start: Start) -> None:
    async with start(ScriptedLlmPool((CALLING,))) as rig:
        events = await _stream(rig, tools=[WEATHER])
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        done = events[-1].response
        assert done.id == events[0].response.id
        assert events[0].response.output == []
        assert [item.type for item in done.output] == ["message", "function_call", "function_call"]
        assert done.output[1].arguments == '{"city":"Oslo"}'
        assert (done.output[1].call_id, done.output[2].call_id) == ("call_1", "call_2")
        added = [event for event in events if event.type == "response.output_item.added"]
        assert [event.item.id for event in added] == [item.id for item in done.output]


async def test_an_answer_that_was_cut_off_is_incomplete(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(finish_reason="length"),))
    async with start(pool) as rig:
        events = await _stream(rig)
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.incomplete_details.reason == "max_output_tokens"


async def test_an_empty_answer_is_an_empty_message(start: Start) -> None:
    async with start(ScriptedLlmPool((ScriptedAnswer(pieces=()),))) as rig:
        events = await _stream(rig)
        assert events[0].type == "response.created"
        [item] = events[-1].response.output
        assert item.content[0].text == ""


async def test_a_conversation_goes_on_by_the_id_of_its_last_response(start: Start) -> None:
    pool = ScriptedLlmPool((CALLING, ScriptedAnswer(), ScriptedAnswer()))
    async with start(pool) as rig:
        create = rig.openai.responses.create
        first = await create(model="scripted", input="Weather?", tools=[WEATHER])
        results: Any = [
            {"type": "function_call_output", "call_id": f"call_{n}", "output": "rain"}
            for n in (1, 2)
        ]
        second = await create(
            model="scripted", input=results, tools=[WEATHER], previous_response_id=first.id
        )
        await create(model="scripted", input="Thanks", previous_response_id=second.id)
        roles = [message["role"] for message in pool.requests[-1].messages]
        assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]
        called = pool.requests[-1].messages[1]
        assert [call["id"] for call in called["tool_calls"]] == ["call_1", "call_2"]
        assert called["content"] == "Let me look. "
        kept = await rig.openai.responses.retrieve(second.id)
        assert kept.output_text == "Hello world"
        await rig.openai.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            await rig.openai.responses.retrieve(second.id)
        with pytest.raises(openai.BadRequestError, match="not kept here"):
            await create(model="scripted", input="More", previous_response_id=second.id)


async def test_a_response_that_is_not_to_be_stored_is_not_kept(start: Start) -> None:
    async with start() as rig:
        answer = await rig.openai.responses.create(model="scripted", input="Hi", store=False)
        with pytest.raises(openai.NotFoundError, match="kept for an hour"):
            await rig.openai.responses.retrieve(answer.id)


async def test_nobody_reads_what_another_key_asked(start: Start) -> None:
    async with start() as rig:
        answer = await rig.openai.responses.create(model="scripted", input="Hi")
        other = rig.openai.with_options(api_key="another")
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(answer.id)


REFUSED: list[tuple[dict[str, Any], str | None]] = [
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"truncation": "auto"}, "truncation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, None),
    (
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
        "input[0]",
    ),
    ({"input": [{"role": "user", "content": [7]}]}, None),
    ({"input": [{"role": "user", "content": 7}]}, None),
    ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].arguments"),
    ({"input": []}, "input"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"tool_choice": {"type": "file_search"}, "tools": [WEATHER]}, "tool_choice.type"),
    ({"tool_choice": {"type": "function", "name": "no"}, "tools": [WEATHER]}, "tool_choice"),
    ({"temperature": 9}, "temperature"),
    ({"metadata": {"a": 7}}, None),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
async def test_what_a_chat_cannot_hold_is_refused_by_name(
    start: Start, fields: dict[str, Any], param: str | None
) -> None:
    async with start() as rig:
        body = {"model": "scripted", "input": "Hi", **fields}
        async with rig.http.post("/v1/responses", json=body) as response:
            told = (await response.json())["error"]
            assert response.status == 400, told
            assert "\n" not in told["message"]
            if param is not None:
                assert told["param"] == param


async def test_a_stream_that_breaks_off_ends_with_an_error_event(start: Start) -> None:
    broken = ScriptedAnswer(error=PoolUnavailableError("gone"), pieces_before_error=1)
    async with start(ScriptedLlmPool((broken,))) as rig:
        with pytest.raises(openai.APIError, match="gone"):
            await _stream(rig)
        body = {"model": "scripted", "input": "Hi", "stream": True}
        async with rig.http.post("/v1/responses", json=body) as response:
            text = await response.text()
        assert "event: error\n" in text
        assert "response.completed" not in text


async def test_thoughts_schema_and_reasoning_reach_the_pool(start: Start) -> None:
    pool = ScriptedLlmPool()
    async with start(pool) as rig:
        await rig.openai.responses.create(
            model="scripted",
            input=[
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "Hm."}],
                },
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Go"},
            ],
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            reasoning={"effort": "low"},
            extra_body={"chat_template_kwargs": {"x": 1}},
        )
        [request] = pool.requests
        assert request.messages[1]["reasoning_content"] == "Hm."
        assert request.json_schema == {"type": "object"}
        assert request.raw_body["reasoning_effort"] == "low"
        assert request.raw_body["chat_template_kwargs"] == {"x": 1}
        assert "input" not in request.raw_body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_frees_the_pool(start: Start, stream: bool, begun: bool) -> None:
    held = asyncio.Event()
    script = ScriptedAnswer(before_each=held) if begun else ScriptedAnswer(before_first=held)
    pool = ScriptedLlmPool((script,))
    async with start(pool) as rig:
        asking = asyncio.create_task(_ask(rig, stream=stream))
        async with asyncio.timeout(5.0):
            await pool.wait_in_flight(1)
            asking.cancel()
            await pool.wait_in_flight(0)
        await asyncio.gather(asking, return_exceptions=True)
        await rig.wait_for(AttemptFinished)
        [finished] = rig.of_kind(AttemptFinished)
        assert (finished.outcome, pool.cancelled) == ("cancelled", 1)


async def _ask(rig: Rig, *, stream: bool) -> None:
    body = {"model": "scripted", "input": "Hi", "stream": stream}
    async with rig.http.post("/v1/responses", json=body) as response:
        await response.read()


async def test_a_numbered_step_is_answered_from_the_log(start: Start) -> None:
    pool = ScriptedLlmPool((CALLING,))
    headers = {"Steelyard-Task": "t", "Idempotency-Key": "t/0"}
    body = {"model": "scripted", "input": "Weather?", "tools": [WEATHER]}
    outputs: list[Any] = []
    async with start(pool) as rig:
        for _ in range(2):
            async with rig.http.post("/v1/responses", json=body, headers=headers) as response:
                told = await response.json()
                outputs.append([item.get("arguments") for item in told["output"]])
    assert outputs == [[None, '{"city":"Oslo"}', "{}"]] * 2
    assert len(pool.requests) == 1


async def test_a_failure_before_the_first_piece_is_retried_unseen(start: Start) -> None:
    broken = ScriptedAnswer(error=PoolUnavailableError("gone"))
    async with start(ScriptedLlmPool((broken, ScriptedAnswer()))) as rig:
        events = await _stream(rig)
        assert events[-1].response.output_text == "Hello world"
        assert [one.outcome for one in rig.of_kind(AttemptFinished)] == ["failed", "ok"]


@pytest.mark.parametrize("n", [2, 0, [1], "1"])
async def test_more_answers_than_a_response_holds_are_refused(start: Start, n: Any) -> None:
    async with start(ScriptedLlmPool()) as rig:
        with pytest.raises(openai.BadRequestError, match="one answer"):
            await rig.openai.responses.create(model="scripted", input="Hi", extra_body={"n": n})
