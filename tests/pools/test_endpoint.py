"""The endpoint pool against real servers on this machine."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.backend import LlmBackend, LlmChunk, LlmRequest
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.endpoint_terms import EndpointLimits

KEY = "sk-very-secret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncGenerator[str]:
    app = web.Application()
    app.router.add_route("*", "/v1/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound_port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{bound_port}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def pool_of(handler: Handler, **limits: float) -> AsyncGenerator[OpenAiEndpointPool]:
    async with serving(handler) as url:
        pool = OpenAiEndpointPool(
            [url],
            models=["m"],
            api_key=KEY,
            limits=msgspec.convert(limits, EndpointLimits),
            headers={"X-Pool": "1"},
        )
        await pool.start()
        try:
            yield pool
        finally:
            await pool.close()


def stream(*objects: Any, done: bool = True) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Steelyard-Pool": "arm"}
        )
        await response.prepare(request)
        for item in objects:
            data = item if isinstance(item, str) else json.dumps(item)
            await response.write(f"data: {data}\n\n".encode())
        if done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return handler


def delta(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text, **more}, "finish_reason": finish}
    return {"id": "x", "choices": [choice], "vendor": {"extra": 1}}


def status(code: int, body: str, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=body, headers=headers)

    return handler


def request(**fields: Any) -> LlmRequest:
    return LlmRequest(
        kind="chat", model="m", messages=[{"role": "user", "content": "Hi"}], **fields
    )


async def collect(pool: LlmBackend, asked: LlmRequest | None = None) -> list[LlmChunk]:
    return [chunk async for chunk in pool.complete(asked or request(), 0)]


async def test_streams_text_headers_raw_chunks_and_usage() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    handler = stream(
        delta("Hel"), delta("lo"), delta(finish="stop"), {"choices": [], "usage": usage}
    )
    async with pool_of(handler) as pool:
        chunks = await collect(pool)
    assert chunks[0].response_headers is not None
    assert chunks[0].response_headers["Steelyard-Pool"] == "arm"
    assert "".join(chunk.text for chunk in chunks) == "Hello"
    assert chunks[1].raw == delta("Hel")
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    last = chunks[-1]
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.cached_tokens, last.usage.output_tokens) == (
        9,
        4,
        2,
    )
    assert last.usage.measured
    assert last.usage.cached_tokens_measured


async def test_passes_the_callers_body_key_and_headers_through() -> None:
    seen: dict[str, Any] = {}

    async def handler(asked: web.Request) -> web.StreamResponse:
        seen["body"] = await asked.json()
        seen["headers"] = dict(asked.headers)
        seen["path"] = asked.path
        return await stream(delta("x", "stop"))(asked)

    body = {"messages": [], "vendor_field": [1], "stream_options": {"other": 1}, "model": "alias"}
    async with pool_of(handler) as pool:
        await collect(pool, request(raw_body=body, extra_headers={"Steelyard-Task": "t1"}))
    assert seen["body"]["vendor_field"] == [1]
    assert seen["body"]["model"] == "m"
    assert seen["body"]["stream_options"] == {"other": 1, "include_usage": True}
    assert seen["headers"]["Authorization"] == f"Bearer {KEY}"
    assert seen["headers"]["Steelyard-Task"] == "t1"
    assert seen["headers"]["X-Pool"] == "1"
    assert seen["path"] == "/v1/chat/completions"
    assert body["stream_options"] == {"other": 1}


async def test_estimates_usage_and_says_so_when_the_upstream_reports_none() -> None:
    async with pool_of(stream(delta("Hello"), delta(" world", "length"))) as pool:
        usage = (await collect(pool))[-1].usage
    assert usage is not None
    assert usage.output_tokens == 3
    assert usage.input_tokens > 0
    assert not usage.measured


async def test_reads_whole_answers_of_servers_that_do_not_stream() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": "All"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        return web.json_response({"choices": [choice], "usage": usage})

    async with pool_of(handler) as pool:
        chunks = await collect(pool)
    assert "".join(chunk.text for chunk in chunks) == "All"
    assert chunks[-1].usage is not None


async def test_hands_on_tool_calls_and_log_probabilities() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": "{}"}}
    first = delta("a", tool_calls=[call])
    first["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}]}
    async with pool_of(stream(first, delta(finish="tool_calls"))) as pool:
        chunks = await collect(pool)
    assert chunks[1].tool_calls[0].name == "add"
    assert chunks[1].logprobs[0].logprob == -0.5


@pytest.mark.parametrize(
    ("code", "headers", "error"),
    [
        (429, {"Retry-After": "7"}, PoolOverloadedError),
        (503, {"Retry-After": "2"}, PoolOverloadedError),
        (500, {}, PoolUnavailableError),
        (401, {}, PoolUnavailableError),
        (400, {}, PoolRejectedError),
        (404, {}, PoolRejectedError),
        (504, {}, PoolTimeoutError),
        (302, {"Location": "http://127.0.0.1:1/"}, PoolProtocolError),
    ],
)
async def test_says_by_its_class_what_the_caller_can_do(
    code: int, headers: dict[str, str], error: type[PoolError]
) -> None:
    body = json.dumps({"error": {"message": f"because {KEY} is bad"}})
    async with pool_of(status(code, body, **headers)) as pool:
        with pytest.raises(error, match="because") as caught:
            await collect(pool)
    assert type(caught.value) is error
    assert KEY not in str(caught.value)
    if isinstance(caught.value, PoolOverloadedError):
        assert caught.value.retry_after_s == float(headers["Retry-After"])


@pytest.mark.parametrize(
    "handler",
    [
        stream("no json"),
        stream({"choices": [3]}),
        stream({"choices": "abc"}),
        stream([1]),
        status(200, "<html>"),
    ],
)
async def test_calls_unreadable_answers_by_their_name(handler: Handler) -> None:
    async with pool_of(handler) as pool:
        with pytest.raises(PoolProtocolError):
            await collect(pool)


async def test_an_answer_that_ends_too_early_can_be_retried() -> None:
    async with pool_of(stream(delta("Hel"), done=False)) as pool:
        with pytest.raises(PoolUnavailableError, match="finish_reason"):
            await collect(pool)


async def test_an_error_inside_the_stream_is_raised() -> None:
    async with pool_of(stream(delta("a"), {"error": {"message": "bad", "code": 400}})) as pool:
        with pytest.raises(PoolRejectedError, match="bad"):
            await collect(pool)


async def test_times_out_on_a_silent_server_and_between_tokens() -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(600)
        return web.Response()

    async def stalling(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        await response.write(b'data: {"choices":[]}\n\n')
        await asyncio.sleep(600)
        return response

    async with pool_of(silent, first_token_s=0.2) as pool:
        with pytest.raises(PoolTimeoutError, match=r"nothing for 0\.2 s"):
            await collect(pool)
    async with pool_of(silent) as pool:
        with pytest.raises(PoolTimeoutError):
            await collect(pool, request(deadline_s=0.2))
    async with pool_of(stalling, gap_s=0.2) as pool:
        with pytest.raises(PoolTimeoutError):
            await collect(pool)


async def test_closing_the_iterator_closes_the_connection_upstream() -> None:
    closed = asyncio.Event()

    async def handler(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        try:
            while True:
                await response.write(f"data: {json.dumps(delta('a'))}\n\n".encode())
                await asyncio.sleep(0.01)
        except (ConnectionResetError, asyncio.CancelledError):
            closed.set()
            raise

    async with pool_of(handler) as pool:
        async with aclosing(pool.complete(request(), 0)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    break
        async with asyncio.timeout(5):
            await closed.wait()


async def test_tells_when_a_server_goes_down_and_comes_back() -> None:
    changes: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

    async def watch(replica: int, up: bool) -> None:
        await changes.put((replica, up))

    async def models(_: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "m"}]})

    async with serving(models) as url:
        pool = OpenAiEndpointPool([url], limits=EndpointLimits(probe_s=0.02))
        await pool.start(watch)
        assert pool.models() == ("m",)
    try:
        with pytest.raises(PoolUnavailableError, match="not reachable"):
            await collect(pool)
        assert await changes.get() == (0, False)
        async with serving(models, port=int(url.rsplit(":", 1)[1].split("/", 1)[0])):
            async with asyncio.timeout(5):
                assert await changes.get() == (0, True)
    finally:
        await pool.close()


async def test_a_server_that_lists_no_models_comes_back_too() -> None:
    seen: list[tuple[int, bool]] = []
    back = asyncio.Event()

    async def watch(replica: int, up: bool) -> None:
        seen.append((replica, up))
        if up:
            back.set()

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no such path"}}, status=404)

    async with serving(handler) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
    pool = OpenAiEndpointPool([url], ["m"], limits=EndpointLimits(probe_s=0.02))
    await pool.start(watch)
    try:
        with pytest.raises(PoolUnavailableError):
            await collect(pool)
        async with serving(handler, port), asyncio.timeout(5.0):
            await back.wait()
    finally:
        await pool.close()
    assert seen == [(0, False), (0, True)]


async def test_turns_texts_into_vectors_in_order() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        rows = [{"index": 1, "embedding": [2, 3]}, {"index": 0, "embedding": [0, 1]}]
        return web.json_response({"data": rows, "usage": {"prompt_tokens": 5}})

    async with pool_of(handler) as pool:
        embeddings = await pool.embed(["a", "b"], "m", 0)
    assert embeddings.vectors == ((0.0, 1.0), (2.0, 3.0))
    assert embeddings.input_tokens == 5


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x/v1", "x", "http://", "http://u:p@h/v1", "http://h:99999/v1"),
        *("http://\u00e9..x/v1", "http://" + "\u00e9" * 80 + "/v1"),
    ],
)
def test_refuses_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="must be http") as caught:
        OpenAiEndpointPool([url])
    assert "u:p" not in str(caught.value)


def test_refuses_a_key_that_no_header_can_hold_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAiEndpointPool(["http://h/v1"], api_key="abc\ndef")
    assert "abc" not in str(caught.value)


def test_chunks_survive_the_way_through_msgpack() -> None:
    chunk = LlmChunk(text="a", raw={"x": [1]})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(chunk), type=LlmChunk) == chunk
