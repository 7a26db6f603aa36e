"""The whole way: openai client, gateway, dispatcher, engine child, real model."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai
import pytest
import pytest_asyncio
from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished, AttemptStarted
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.pool import EmbeddedEnginePool

MODEL = EngineSettings().model
HELLO: list[Any] = [{"role": "user", "content": "Name a colour."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

pytestmark = [
    pytest.mark.engine,
    # One engine, one event loop for all tests here: loading the model takes seconds.
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncGenerator[EmbeddedEnginePool, None]:
    pool = EmbeddedEnginePool()
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def test_chat_whole_and_streamed_give_the_same_text(
    start: Start, engine: EmbeddedEnginePool
) -> None:
    async with start(engine) as rig:
        # A prompt computed anew and one from the cache differ in the last bits: both are cached.
        _, whole = [
            await rig.openai.chat.completions.create(
                model=MODEL, messages=HELLO, max_tokens=12, temperature=0
            )
            for _ in range(2)
        ]
        stream = await rig.openai.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert text
        assert whole.usage is not None
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens > 5


async def test_a_completion_with_logprobs(start: Start, engine: EmbeddedEnginePool) -> None:
    async with start(engine) as rig:
        answer = await rig.openai.completions.create(
            model=MODEL, prompt="The capital of France is", max_tokens=3, temperature=0, logprobs=0
        )
        logprobs = answer.choices[0].logprobs
        assert "Paris" in answer.choices[0].text
        assert logprobs is not None
        assert len(logprobs.token_logprobs or []) == 3
        assert [model.id async for model in rig.openai.models.list()] == [MODEL]


async def test_a_json_schema_is_followed(start: Start, engine: EmbeddedEnginePool) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"kind": {"enum": ["red", "green"]}},
        "required": ["kind"],
        "additionalProperties": False,
    }
    async with start(engine) as rig:
        answer = await rig.openai.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=30,
            response_format={"type": "json_schema", "json_schema": {"name": "k", "schema": schema}},
        )
        assert json.loads(answer.choices[0].message.content or "")["kind"] in {"red", "green"}
        bad: Any = {"name": "bad", "schema": {"type": "zzz"}}
        with pytest.raises(openai.BadRequestError, match="schema"):
            await rig.openai.chat.completions.create(
                model=MODEL,
                messages=HELLO,
                response_format={"type": "json_schema", "json_schema": bad},
            )


async def test_a_tool_call_is_made(start: Start, engine: EmbeddedEnginePool) -> None:
    async with start(engine) as rig:
        answer = await rig.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
            tools=[TOOL],
            tool_choice="required",
            max_tokens=64,
        )
        [call] = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "weather"
        assert "city" in json.loads(call.function.arguments)


async def test_a_response_calls_a_tool_takes_its_result_and_streams(
    start: Start, engine: EmbeddedEnginePool
) -> None:
    tool: Any = {"type": "function", "strict": True, **TOOL["function"]}
    async with start(engine) as rig:
        first = await rig.openai.responses.create(
            model=MODEL,
            input=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "input_text", "text": "Weather in Oslo?"}]},
            ],
            tools=[tool],
            tool_choice="required",
            max_output_tokens=64,
        )
        [call] = [item for item in first.output if item.type == "function_call"]
        assert "city" in json.loads(call.arguments)
        stream = await rig.openai.responses.create(
            model=MODEL,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
            previous_response_id=first.id,
            max_output_tokens=8,
            stream=True,
        )
        events: list[Any] = [event async for event in stream]
        last = events[-1]
        assert last.type in {"response.completed", "response.incomplete"}
        assert last.response.output_text


async def test_an_image_is_refused_in_one_line(start: Start, engine: EmbeddedEnginePool) -> None:
    part: Any = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    async with start(engine) as rig:
        with pytest.raises(openai.BadRequestError, match="reads text only") as caught:
            await rig.openai.responses.create(
                model=MODEL, input=[{"role": "user", "content": [part]}]
            )
        assert "\n" not in caught.value.message


async def test_a_prompt_longer_than_the_context_is_400(
    start: Start, engine: EmbeddedEnginePool
) -> None:
    async with start(engine) as rig:
        for words in (9_000, 60_000):
            with pytest.raises(openai.BadRequestError, match="tokens"):
                await rig.openai.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "one " * words}]
                )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_slot(
    start: Start, engine: EmbeddedEnginePool, stream: bool
) -> None:
    async with start(engine) as rig:
        async with _asking(rig, stream) as request:
            await rig.wait_for(AttemptStarted)
            request.cancel()
        await rig.wait_for(AttemptFinished)
        assert engine.in_flight(0) == 0
        [finished] = rig.of_kind(AttemptFinished)
        assert finished.outcome == "cancelled"


def _asking(rig: Rig, stream: bool) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 2000, "stream": stream}

    async def ask() -> None:
        async with rig.http.post("/v1/chat/completions", json=body) as response:
            await response.read()

    @asynccontextmanager
    async def scope() -> AsyncGenerator["asyncio.Task[None]", None]:
        task = asyncio.create_task(ask())
        yield task
        await asyncio.gather(task, return_exceptions=True)

    return scope()
