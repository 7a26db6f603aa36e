"""The real engine with the real model, in a child process."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import jsonschema
import pytest

from steelyard.errors import (
    PoolOverloadedError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.backend import JsonObject, LlmBackend, LlmChunk, LlmRequest, LlmUsage
from steelyard.pools.engine.pool import EmbeddedEnginePool

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

MODEL = "smollm2-135m-instruct"
LONG_PROMPT = "word salad " * 1500
WEATHER: JsonObject = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 24}},
            "required": ["city"],
        },
    },
}
ADD: JsonObject = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def request(text: str = "Tell me the capital of France.", **fields: Any) -> LlmRequest:
    base: JsonObject = {
        "kind": "chat",
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_output_tokens": 24,
        "temperature": 0.0,
    }
    return LlmRequest(**{**base, **fields})


async def collect(pool: LlmBackend, asked: LlmRequest) -> list[LlmChunk]:
    return [chunk async for chunk in pool.complete(asked, 0)]


def text_of(chunks: list[LlmChunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def usage_of(chunks: list[LlmChunk]) -> LlmUsage:
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert chunks[-1].usage is usage
    return usage


async def until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the pool has no event to wait for
            await asyncio.sleep(0.01)


async def test_tells_how_many_tokens_it_holds(
    engine_pool: EmbeddedEnginePool, request: pytest.FixtureRequest
) -> None:
    if "openvino" in request.node.name:
        assert engine_pool.cache_tokens == 2452 * 32
    else:
        # llama.cpp gives every stream a context of its own; snapshots come on top.
        assert engine_pool.cache_tokens >= 8 * engine_pool.context_tokens


async def test_streams_an_answer_token_by_token(engine_pool: EmbeddedEnginePool) -> None:
    chunks = await collect(engine_pool, request())
    assert "Paris" in text_of(chunks)
    assert len(chunks) > 5
    assert chunks[-1].finish_reason == "stop"
    usage = usage_of(chunks)
    assert usage.input_tokens > 30
    assert 5 < usage.output_tokens <= 24
    assert usage.cached_tokens < usage.input_tokens


async def test_greedy_answers_and_seeded_answers_repeat(engine_pool: EmbeddedEnginePool) -> None:
    greedy = [text_of(await collect(engine_pool, request())) for _ in range(2)]
    assert greedy[0] == greedy[1]
    asked = request("Tell me a story.", temperature=1.0, seed=7, max_output_tokens=12)
    # The first one computes the prompt; the others read it from the cache, which rounds otherwise.
    seeded = [text_of(await collect(engine_pool, asked)) for _ in range(3)]
    assert seeded[1] == seeded[2]
    free = request("Tell me a story.", temperature=1.0, max_output_tokens=12)
    unseeded = {text_of(await collect(engine_pool, free)) for _ in range(3)}
    assert len(unseeded) > 1


async def test_continues_a_plain_prompt(engine_pool: EmbeddedEnginePool) -> None:
    asked = request(kind="completion", messages=[], prompt="One, two, three, four,")
    assert "seven" in text_of(await collect(engine_pool, asked))


async def test_follows_a_json_schema(engine_pool: EmbeddedEnginePool) -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
    }
    chunks = await collect(engine_pool, request("Is snow white?", json_schema=schema))
    jsonschema.validate(json.loads(text_of(chunks)), schema)


async def test_gives_a_json_object_when_asked_for_one(engine_pool: EmbeddedEnginePool) -> None:
    asked = request("Name a city as JSON.", json_object=True, max_output_tokens=60)
    chunks = await collect(engine_pool, asked)
    if chunks[-1].finish_reason == "stop":
        assert isinstance(json.loads(text_of(chunks)), dict)
    assert text_of(chunks).lstrip().startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_calls_a_tool_with_valid_arguments(
    engine_pool: EmbeddedEnginePool, choice: str | JsonObject
) -> None:
    asked = request(
        "What is 2 + 3?", tools=[WEATHER, ADD], tool_choice=choice, max_output_tokens=80
    )
    chunks = await collect(engine_pool, asked)
    assert chunks[-1].finish_reason == "tool_calls"
    (call,) = [call for chunk in chunks for call in chunk.tool_calls]
    parameters = {t["function"]["name"]: t["function"]["parameters"] for t in (WEATHER, ADD)}
    jsonschema.validate(json.loads(call.arguments), parameters[call.name])
    if choice != "required":
        assert call.name == "add"
    assert call.id.startswith("call_")
    assert text_of(chunks) == ""


async def test_with_tool_choice_auto_calls_or_replies(engine_pool: EmbeddedEnginePool) -> None:
    chunks = await collect(engine_pool, request("Hello!", tools=[WEATHER], max_output_tokens=60))
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert bool(calls) != bool(text_of(chunks))


async def test_with_tool_choice_none_answers_in_words(engine_pool: EmbeddedEnginePool) -> None:
    chunks = await collect(engine_pool, request(tools=[WEATHER], tool_choice="none"))
    assert "Paris" in text_of(chunks)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "word salad " * 9000}, "tokens or more; smollm2"),
        ({"json_schema": {"type": "zzz"}}, "not valid at #/type"),
        ({"json_schema": {"type": "string", "format": "date"}}, "#/format"),
        ({"max_output_tokens": 0}, "max_tokens is 0"),
        ({"n": 9}, "n is 9"),
        ({"logprobs": True, "top_logprobs": 5}, "top_logprobs is 5"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"model": "gpt-9"}, "not 'gpt-9'"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice is 'maybe'"),
        ({"messages": []}, "no messages"),
        ({"raw_body": {"logit_bias": {"1": 5}}}, "logit_bias"),
        ({"raw_body": {"guided_regex": "a+"}}, "guided_regex"),
    ],
)
async def test_rejects_wrong_requests_before_the_engine_sees_them(
    engine_pool: EmbeddedEnginePool, fields: JsonObject, message: str
) -> None:
    with pytest.raises(PoolRejectedError, match=message):
        await collect(engine_pool, request(**fields))
    assert "Paris" in text_of(await collect(engine_pool, request()))


async def test_rejects_a_schema_nested_too_deep_to_be_sent(engine_pool: EmbeddedEnginePool) -> None:
    schema: JsonObject = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(PoolRejectedError):
        await collect(engine_pool, request(json_schema=schema))
    while schema:  # taken apart by hand: freeing it recursively would overflow the C stack
        schema = schema.pop("items")
    assert "Paris" in text_of(await collect(engine_pool, request()))


async def test_stops_at_stop_strings_and_at_the_limit(engine_pool: EmbeddedEnginePool) -> None:
    whole = text_of(await collect(engine_pool, request()))
    stop = whole[5:9]
    stopped = await collect(engine_pool, request(stop=(stop, "zzz")))
    assert text_of(stopped) == whole[: whole.index(stop)]
    assert stopped[-1].finish_reason == "stop"
    limited = await collect(engine_pool, request(max_output_tokens=3))
    assert limited[-1].finish_reason == "length"
    assert usage_of(limited).output_tokens == 3


async def test_gives_log_probabilities_of_the_chosen_tokens(
    engine_pool: EmbeddedEnginePool,
) -> None:
    chunks = await collect(engine_pool, request(logprobs=True))
    logprobs = [entry for chunk in chunks for entry in chunk.logprobs]
    assert "".join(entry.token for entry in logprobs) == text_of(chunks)
    assert all(entry.logprob <= 0 for entry in logprobs)


async def test_gives_several_answers(engine_pool: EmbeddedEnginePool) -> None:
    chunks = await collect(
        engine_pool, request("Tell me a story.", n=3, temperature=1.0, seed=1, max_output_tokens=9)
    )
    assert len({text_of(chunks, index) for index in range(3)}) == 3
    assert sum(chunk.finish_reason is not None for chunk in chunks) == 3
    assert usage_of(chunks).output_tokens > 9


async def test_counts_a_repeated_prefix_as_cached(engine_pool: EmbeddedEnginePool) -> None:
    history = "The quick brown fox jumps over the lazy dog. " * 16
    first = usage_of(await collect(engine_pool, request(history + "One?", max_output_tokens=2)))
    second = usage_of(await collect(engine_pool, request(history + "Two?", max_output_tokens=2)))
    assert second.cached_tokens > first.cached_tokens
    assert second.cached_tokens > 0.8 * second.input_tokens


async def test_serves_eight_at_once_and_computes_their_shared_prefix_once(
    engine_pool: EmbeddedEnginePool,
) -> None:
    prefix = "A shared instruction for all of the agents. " * 20
    asked = [request(f"{prefix} Question {i}?", max_output_tokens=4) for i in range(8)]
    answers = await asyncio.gather(*(collect(engine_pool, one) for one in asked))
    usages = [usage_of(chunks) for chunks in answers]
    assert sum(usage.cached_tokens < 0.5 * usage.input_tokens for usage in usages) == 1


async def test_closing_in_prefill_frees_the_place_at_once(engine_pool: EmbeddedEnginePool) -> None:
    chunks = engine_pool.complete(request(LONG_PROMPT), 0)
    first = asyncio.create_task(anext(chunks))
    await until(lambda: engine_pool.in_flight(0) > 0, within_s=10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await chunks.aclose()
    assert engine_pool.in_flight(0) == 0
    assert "Paris" in text_of(await collect(engine_pool, request()))


async def test_closing_mid_stream_frees_the_place(engine_pool: EmbeddedEnginePool) -> None:
    asked = request("Tell me a very long story.", max_output_tokens=2000)
    async with aclosing(engine_pool.complete(asked, 0)) as chunks:
        async for chunk in chunks:
            if chunk.text:
                break
    assert engine_pool.in_flight(0) == 0
    assert "Paris" in text_of(await collect(engine_pool, request()))


async def test_gives_up_at_the_deadline(engine_pool: EmbeddedEnginePool) -> None:
    asked = request("Tell me a long story.", max_output_tokens=4000, deadline_s=0.3)
    with pytest.raises(PoolTimeoutError, match=r"within 0\.3 s"):
        await collect(engine_pool, asked)
    assert engine_pool.in_flight(0) == 0


async def test_refuses_what_does_not_fit_its_queue(engine_pool: EmbeddedEnginePool) -> None:
    calls = [
        asyncio.create_task(collect(engine_pool, request(f"Count to {i}.", max_output_tokens=2)))
        for i in range(13)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, PoolOverloadedError)]
    assert len(refused) == 3
    assert all(error.retry_after_s > 0 for error in refused)
    assert all(isinstance(result, list | PoolOverloadedError) for result in results)


async def test_has_no_embeddings(engine_pool: EmbeddedEnginePool) -> None:
    assert not engine_pool.supports_embeddings
    with pytest.raises(PoolRejectedError, match="no embeddings"):
        await engine_pool.embed(["a"], MODEL, 0)


async def test_a_stop_that_reaches_the_whole_group_leaves_the_engine_to_its_gateway(
    engine_pool: EmbeddedEnginePool,
) -> None:
    await until(lambda: engine_pool.in_flight(0) == 0, within_s=10)
    pid = engine_pool.pid(0)
    assert pid is not None
    chunks = engine_pool.complete(request("Tell me a story.", max_output_tokens=40), 0)
    told = [await anext(chunks)]
    os.kill(pid, signal.SIGTERM)
    told += [chunk async for chunk in chunks]
    assert usage_of(told).output_tokens > 1
    assert engine_pool.pid(0) == pid


async def test_a_killed_replica_fails_its_requests_retryably_and_returns(
    engine_pool: EmbeddedEnginePool,
) -> None:
    await until(lambda: engine_pool.in_flight(0) == 0, within_s=10)
    pid = engine_pool.pid(0)
    assert pid is not None
    chunks = engine_pool.complete(request("Tell me a story.", max_output_tokens=500), 0)
    await anext(chunks)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PoolUnavailableError, match="died") as caught:
        async for _ in chunks:
            pass
    assert caught.value.retryable
    with pytest.raises(PoolUnavailableError, match="being restarted"):
        await collect(engine_pool, request())
    await until(lambda: engine_pool.is_up(0), within_s=250)
    assert engine_pool.pid(0) != pid
    assert "Paris" in text_of(await collect(engine_pool, request()))
