"""Chat completions through the unmodified openai client and a real server."""

from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest
from tests.gateway.conftest import Start

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished
from steelyard.domain.task import LlmCall
from steelyard.errors import PoolOverloadedError, PoolUnavailableError
from steelyard.pools.backend import LlmChunk, LlmRequest, ToolCallDelta
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

HELLO: list[Any] = [{"role": "user", "content": "Say hello"}]
WEATHER_TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


async def test_a_whole_answer_has_text_usage_and_cost(start: Start) -> None:
    async with start() as rig:
        raw = await rig.openai.chat.completions.with_raw_response.create(
            model="scripted", messages=HELLO
        )
        answer = raw.parse()
        assert answer.choices[0].message.content == "Hello world"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
        [finished] = rig.of_kind(AttemptFinished)
        assert float(raw.headers["steelyard-cost-usd"]) == finished.cost_usd > 0.0
        assert raw.headers["steelyard-pool"] == "lab"
        assert raw.headers["steelyard-replica"] == "0"
        assert float(raw.headers["steelyard-predicted-s"]) > 0.0
        assert raw.headers["steelyard-reason"]


async def test_a_stream_gives_the_same_text_and_ends_with_usage_and_cost(start: Start) -> None:
    async with start() as rig:
        stream = await rig.openai.chat.completions.create(
            model="scripted",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Hello world"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 2
        [finished] = rig.of_kind(AttemptFinished)
        assert (chunks[-1].model_extra or {})["steelyard"] == {"cost_usd": finished.cost_usd}


async def test_a_stream_without_include_usage_has_no_usage(start: Start) -> None:
    async with start() as rig:
        stream = await rig.openai.chat.completions.create(
            model="scripted", messages=HELLO, stream=True
        )
        assert all([chunk.usage is None and chunk.choices async for chunk in stream])


async def test_a_request_without_a_task_is_a_task_of_its_own(start: Start) -> None:
    async with start() as rig:
        await rig.openai.chat.completions.create(model="scripted", messages=HELLO)
        [finished] = rig.of_kind(TaskFinished)
        assert finished.status == "succeeded"


async def test_several_answers_with_logprobs_keep_their_places(start: Start) -> None:
    async with start() as rig:
        answer = await rig.openai.chat.completions.create(
            model="scripted", messages=HELLO, n=3, logprobs=True, top_logprobs=0
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        for choice in answer.choices:
            assert choice.message.content == "Hello world"
            assert choice.logprobs is not None
            told = choice.logprobs.content or []
            assert [(one.token, one.logprob) for one in told] == [("Hello", -0.5), (" world", -0.5)]


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_arrive_whole(start: Start, stream: bool) -> None:
    calls = (
        ToolCallDelta(index=0, id="call_1", name="weather", arguments='{"city": '),
        ToolCallDelta(index=0, arguments='"Oslo"}'),
    )
    script = ScriptedAnswer(pieces=(), tool_calls=calls, finish_reason="tool_calls")
    async with start(ScriptedLlmPool((script,))) as rig:
        arguments = ""
        if stream:
            events = await rig.openai.chat.completions.create(
                model="scripted", messages=HELLO, tools=[WEATHER_TOOL], stream=True
            )
            async for chunk in events:
                for delta in chunk.choices[0].delta.tool_calls or []:
                    assert delta.function is not None
                    arguments += delta.function.arguments or ""
        else:
            answer = await rig.openai.chat.completions.create(
                model="scripted", messages=HELLO, tools=[WEATHER_TOOL]
            )
            assert answer.choices[0].finish_reason == "tool_calls"
            assert answer.choices[0].message.content is None
            [call] = answer.choices[0].message.tool_calls or []
            assert call.type == "function"
            assert (call.id, call.function.name) == ("call_1", "weather")
            arguments = call.function.arguments
        assert arguments == '{"city": "Oslo"}'


async def test_every_parameter_reaches_the_pool_and_unknown_ones_stay_in_the_raw_body(
    start: Start,
) -> None:
    pool = ScriptedLlmPool()
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}}
    async with start(pool) as rig:
        await rig.openai.chat.completions.create(
            model="scripted",
            messages=HELLO,
            max_completion_tokens=33,
            temperature=0.25,
            top_p=0.5,
            seed=7,
            stop=["END"],
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
            extra_body={"min_p": 0.1},
        )
    [request] = pool.requests
    assert request.max_output_tokens == 33
    assert (request.temperature, request.top_p, request.seed) == (0.25, 0.5, 7)
    assert request.stop == ("END",)
    assert request.json_schema == schema
    assert request.raw_body["min_p"] == 0.1


async def test_vendor_fields_of_an_endpoint_are_passed_on(start: Start) -> None:
    class Reasoning(ScriptedLlmPool):
        async def complete(
            self, request: LlmRequest, replica: int
        ) -> AsyncGenerator[LlmChunk, None]:
            for piece in ("let me ", "think"):
                raw = {"choices": [{"index": 0, "delta": {"reasoning_content": piece}}]}
                yield LlmChunk(raw=raw)
            yield LlmChunk(text="42", finish_reason="stop")

    async with start(Reasoning()) as rig:
        answer = await rig.openai.chat.completions.create(model="scripted", messages=HELLO)
        message = answer.choices[0].message
        assert message.content == "42"
        assert (message.model_extra or {})["reasoning_content"] == "let me think"


async def test_a_failure_before_the_first_piece_is_retried_unseen(start: Start) -> None:
    broken = ScriptedAnswer(error=PoolUnavailableError("replica 0 died"))
    async with start(ScriptedLlmPool((broken, ScriptedAnswer()))) as rig:
        answer = await rig.openai.chat.completions.create(model="scripted", messages=HELLO)
        assert answer.choices[0].message.content == "Hello world"
        outcomes = [event.outcome for event in rig.of_kind(AttemptFinished)]
        assert outcomes == ["failed", "ok"]


async def test_a_failure_in_mid_stream_ends_the_stream_with_an_error_event(start: Start) -> None:
    broken = ScriptedAnswer(error=PoolUnavailableError("replica 0 died"), pieces_before_error=1)
    async with start(ScriptedLlmPool((broken,))) as rig:
        stream = await rig.openai.chat.completions.create(
            model="scripted", messages=HELLO, stream=True
        )
        texts: list[str] = []
        with pytest.raises(openai.APIError, match="replica 0 died"):
            texts.extend([chunk.choices[0].delta.content or "" async for chunk in stream])
        body = {"model": "scripted", "messages": HELLO, "stream": True}
        async with rig.http.post("/v1/chat/completions", json=body) as response:
            received = await response.text()
        assert response.status == 200
        assert '"code":"pool_unavailable"' in received
        assert "[DONE]" not in received
        assert [event.status for event in rig.of_kind(TaskFinished)] == ["failed", "failed"]


async def test_overload_is_429_with_retry_after(start: Start) -> None:
    full = ScriptedAnswer(error=PoolOverloadedError("the queue is full", retry_after_s=2.2))
    async with start(ScriptedLlmPool((full,))) as rig:
        with pytest.raises(openai.RateLimitError) as caught:
            await rig.openai.chat.completions.create(model="scripted", messages=HELLO, stream=True)
        assert caught.value.response.headers["retry-after"] == "3"
        assert caught.value.code == "pool_overloaded"


async def test_the_prompt_is_hashed_at_every_message(start: Start) -> None:
    async with start() as rig:
        longer: list[Any] = [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]
        for messages in (HELLO, longer):
            await rig.openai.chat.completions.create(model="scripted", messages=messages)
        first, second = (event.step.call for event in rig.of_kind(StepPlaced))
        assert isinstance(first, LlmCall)
        assert isinstance(second, LlmCall)
        assert len(second.prefix_hashes) == 3
        assert second.prefix_hashes[:1] == first.prefix_hashes
        assert second.input_tokens == second.prefix_tokens[-1]


class Mute(ScriptedLlmPool):
    """Tells what it used, and no more."""

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        async for chunk in super().complete(request, replica):
            if chunk.usage is not None:
                yield LlmChunk(usage=chunk.usage)


@pytest.mark.parametrize("frac", [0.0, 1.0], ids=["alone", "hedged"])
@pytest.mark.parametrize("kind", [ScriptedLlmPool, Mute])
async def test_a_streamed_answer_without_text_has_a_role_and_an_end(
    start: Start, kind: type[ScriptedLlmPool], frac: float
) -> None:
    async with start(kind((ScriptedAnswer(pieces=()),))) as rig:
        rig.dispatcher.hedge_up_to(frac)
        stream = await rig.openai.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        choices = [chunk.choices[0] async for chunk in stream if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert [one.finish_reason for one in choices][-1] == "stop"
