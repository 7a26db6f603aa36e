"""Answers of endpoints reach the client byte for byte, and failures as what they are."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.gateway.conftest import Rig, Start
from tests.gateway.raw_upstream import (
    STREAM,
    WHOLE,
    Call,
    RawUpstream,
    Script,
    chunk,
    piece,
    raw_upstream,
    usage_event,
    whole,
)

from steelyard.domain.events import AttemptFinished, TaskFinished
from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.endpoint_terms import EndpointLimits

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAMED: dict[str, Any] = {**ASK, "stream": True}
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@asynccontextmanager
async def rig_of(
    start: Start,
    script: Script,
    limits: EndpointLimits | None = None,
    settings: GatewaySettings | None = None,
) -> AsyncGenerator[tuple[Rig, RawUpstream]]:
    async with raw_upstream(script) as (upstream, url):
        pool = OpenAiEndpointPool([url], ["m"], limits=limits)
        await pool.start()
        try:
            async with start(pool, settings=settings) as rig:
                yield rig, upstream
        finally:
            await pool.close()


async def post(
    rig: Rig, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with rig.http.post("/v1/chat/completions", data=data, headers=headers) as response:
        return response.status, await response.read(), response.headers


async def test_a_whole_answer_and_its_request_pass_byte_for_byte(start: Start) -> None:
    answer = json.dumps(WHOLE, indent=1).replace("1.1", "1.10").encode()

    async def script(call: Call) -> None:
        await call.send(whole(answer))

    sent = (
        b'{ "model":"m", "messages":[{"role":"user","content":"Hi"}], "min_p":0.10, "x":{"y":[]}}'
    )
    async with rig_of(start, script) as (rig, upstream):
        status, received, headers = await post(rig, sent)
        [finished] = rig.of_kind(AttemptFinished)
    assert (status, received) == (200, answer)
    assert upstream.calls[0].body == sent
    assert float(headers["steelyard-cost-usd"]) == finished.cost_usd > 0.0
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (5, 2)


@pytest.mark.parametrize("line_end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_events_pass_byte_for_byte_however_they_are_cut(
    start: Start, cut: int, line_end: bytes
) -> None:
    events = [b": ping\n\n", piece("Hel"), piece("lo \u00fc"), piece("", "stop")]
    events = [event.replace(b"\n\n", line_end) for event in events]
    sent = b"".join(events) + usage_event().replace(b"\n\n", line_end)

    async def script(call: Call) -> None:
        parts = [sent[at : at + cut] for at in range(0, len(sent), cut)]
        await call.send(STREAM + b"".join(chunk(part) for part in parts) + END)

    async with rig_of(start, script) as (rig, upstream):
        _, received, _ = await post(rig, STREAMED)
        asked = json.loads(upstream.calls[0].body)
        [finished] = rig.of_kind(AttemptFinished)
        with_usage = {**STREAMED, "stream_options": {"include_usage": True}}
        _, told, _ = await post(rig, with_usage)
    assert asked["stream_options"] == {"include_usage": True}
    # The client did not ask for usage, so that event is not for it.
    assert received.replace(line_end, b"\n\n") == (
        b"".join(events).replace(line_end, b"\n\n") + b"data: [DONE]\n\n"
    )
    assert finished.usage.output_tokens == 2
    last = json.loads(told.split(b"data: ")[-2])
    assert last["usage"] == WHOLE["usage"]
    assert last["steelyard"] == {"cost_usd": finished.cost_usd}


async def test_each_event_is_sent_on_before_the_next_one_comes(start: Start) -> None:
    seen = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("one")))
        await seen.wait()
        await call.send(chunk(piece("two", "stop")) + END)

    async with (
        rig_of(start, script) as (rig, _),
        asyncio.timeout(5.0),
        rig.http.post("/v1/chat/completions", json=STREAMED) as got,
    ):
        assert await got.content.readuntil(b"\n\n") == piece("one")
        seen.set()
        assert (await got.content.read()).startswith(piece("two", "stop"))


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_counted_when_the_upstream_sends_none(start: Start, stream: bool) -> None:
    async def script(call: Call) -> None:
        if stream:
            await call.send(STREAM + chunk(piece("x" * 40)) + chunk(piece("", "stop")) + END)
        else:
            message = {"role": "assistant", "content": "x" * 40}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await call.send(whole(json.dumps({"choices": [choice]}).encode()))

    async with rig_of(start, script) as (rig, _):
        await post(rig, {**ASK, "stream": stream})
        [finished] = rig.of_kind(AttemptFinished)
    assert finished.usage.output_tokens == 10
    assert finished.usage.counting == "estimated"
    assert finished.cost_usd > 0.0


async def test_a_body_that_names_a_field_twice_is_written_anew(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(WHOLE).encode()))

    sent = b'{"model":"dear","messages":[{"role":"user","content":"Hi"}],"model":"m"}'
    async with rig_of(start, script) as (rig, upstream):
        assert (await post(rig, sent))[0] == 200
    assert upstream.calls[0].body.count(b'"model"') == 1
    assert json.loads(upstream.calls[0].body)["model"] == "m"


async def test_an_upstream_that_dies_in_mid_stream_ends_it_with_an_error_event(
    start: Start,
) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("one")))
        call.writer.close()

    async with rig_of(start, script) as (rig, upstream):
        status, received, _ = await post(rig, STREAMED)
        [finished] = rig.of_kind(AttemptFinished)
    assert status == 200
    assert received.startswith(piece("one"))
    assert b'"code":"pool_unavailable"' in received
    assert b"[DONE]" not in received
    # Something was sent, so that nothing is tried again; what came is paid for.
    assert len(upstream.calls) == 1
    assert finished.outcome == "failed"
    assert finished.usage.output_tokens == 1


async def test_an_upstream_that_fails_before_the_first_event_is_tried_again(start: Start) -> None:
    async def script(call: Call) -> None:
        if len(upstream.calls) == 1:
            call.writer.close()
        elif len(upstream.calls) == 2:
            body = b'{"error":{"message":"boom"}}'
            await call.send(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        else:
            await call.send(STREAM + chunk(piece("one", "stop")) + END)

    async with rig_of(start, script, EndpointLimits(probe_s=0.01)) as (rig, upstream):
        status, received, _ = await post(rig, STREAMED)
        outcomes = [event.outcome for event in rig.of_kind(AttemptFinished)]
    assert (status, received) == (200, piece("one", "stop") + b"data: [DONE]\n\n")
    assert outcomes == ["failed", "failed", "ok"]


async def test_connections_are_reused_and_one_that_ended_meanwhile_is_replaced(
    start: Start,
) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(WHOLE).encode()))
        if len(upstream.calls) == 3:
            call.writer.close()

    async with rig_of(start, script) as (rig, upstream):
        for _ in range(5):
            assert (await post(rig, ASK))[0] == 200
    assert upstream.connections == 2


@pytest.mark.parametrize(
    ("limits", "body", "status"),
    [(EndpointLimits(first_token_s=0.1), STREAMED, 504), (EndpointLimits(answer_s=0.1), ASK, 504)],
)
async def test_a_silent_upstream_is_given_up(
    start: Start, limits: EndpointLimits, body: Any, status: int
) -> None:
    async def script(call: Call) -> None:
        await call.left.wait()

    headers = {"Steelyard-Deadline": "0.2", "Steelyard-On-Miss": "run_late"}
    async with rig_of(start, script, limits) as (rig, _):
        assert (await post(rig, body, headers))[0] == status


async def test_a_gap_that_is_too_long_ends_the_stream_with_an_error_event(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("one")))
        await call.left.wait()

    async with rig_of(start, script, EndpointLimits(gap_s=0.1)) as (rig, _):
        _, received, _ = await post(rig, STREAMED)
    assert b'"code":"pool_timeout"' in received


@pytest.mark.parametrize("case", ["whole", "before the first event", "in mid-stream"])
async def test_a_client_that_leaves_frees_upstream_and_place(start: Start, case: str) -> None:
    async def script(call: Call) -> None:
        if case == "in mid-stream":
            await call.send(STREAM + chunk(piece("one")))
        await call.left.wait()

    async with rig_of(start, script) as (rig, upstream):
        body = ASK if case == "whole" else STREAMED
        async with aiohttp.ClientSession(rig.server.url) as session:
            asking = asyncio.create_task(
                session.post("/v1/chat/completions", json=body).__aenter__()
            )
            await upstream.came.wait()
            if case == "in mid-stream":
                response = await asking
                await response.content.readuntil(b"\n\n")
                response.close()
            else:
                asking.cancel()
            async with asyncio.timeout(5.0):
                await upstream.calls[0].left.wait()
        await rig.wait_for(TaskFinished)
        assert [event.outcome for event in rig.of_kind(AttemptFinished)] == ["cancelled"]
        assert rig.dispatcher.state.running_on("lab", 0) == 0


async def test_a_client_that_reads_slowly_holds_the_upstream_back(start: Start) -> None:
    sent = 0
    event = chunk(piece("x" * 8192))

    async def script(call: Call) -> None:
        nonlocal sent
        await call.send(STREAM)
        for _ in range(4000):
            await call.send(event)
            sent += 1
        await call.send(chunk(piece("", "stop")) + END)

    async with rig_of(start, script) as (rig, _):
        body = json.dumps(STREAMED).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port, limit=1024)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        before = -1
        while not sent or sent > before:
            before = sent
            for _ in range(20):
                async with rig.http.get("/healthz") as response:
                    assert response.status == 200
        assert sent < 3500
        received = await reader.read(-1)
        assert received.count(b"data: {") == 4001
        writer.close()


async def test_upstream_errors_keep_their_meaning(start: Start) -> None:
    body = b'{"error":{"message":"too long","code":"context_length_exceeded"}}'

    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with rig_of(start, script) as (rig, _):
        status, received, _ = await post(rig, STREAMED)
    assert status == 400
    assert b"too long" in received


async def test_an_answer_longer_than_the_limit_of_time_is_504_and_ends_upstream(
    start: Start,
) -> None:
    async def script(call: Call) -> None:
        await call.left.wait()

    # Long enough for a busy machine to have asked the upstream by then.
    settings = GatewaySettings(limits=GatewayLimits(request_timeout_s=1.0))
    async with rig_of(start, script, settings=settings) as (rig, upstream):
        assert (await post(rig, ASK))[0] == 504
        async with asyncio.timeout(5.0):
            await upstream.calls[0].left.wait()
