"""Upstreams that are not quite as they should be, and what their answers come to."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from tests.gateway.conftest import Start
from tests.gateway.raw_upstream import STREAM, WHOLE, Call, chunk, piece, usage_event, whole
from tests.gateway.test_relay import ASK, END, STREAMED, post, rig_of

from steelyard.domain.events import AttemptFinished

DONE = chunk(b"data: [DONE]\n\n")
NAMED = {"Steelyard-Task": "t1"}
NUMBERED = {**NAMED, "Idempotency-Key": "t1/0"}


def event(choice: dict[str, Any], **more: object) -> bytes:
    told = {"choices": [{"index": 0, "finish_reason": None, **choice}], **more}
    return chunk(b"data: " + json.dumps(told).encode() + b"\n\n")


@pytest.mark.parametrize("stays", [False, True])
async def test_a_numbered_step_is_whole_with_its_last_event_too(start: Start, stays: bool) -> None:
    over = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("Hi", "stop") + usage_event()) + DONE)
        if stays:
            await over.wait()
        call.writer.close()

    async with rig_of(start, script) as (rig, upstream):
        async with asyncio.timeout(5.0):
            status, received, _ = await post(rig, ASK, NUMBERED)
            if stays:
                await upstream.calls[0].left.wait()
        over.set()
    assert (status, len(upstream.calls)) == (200, 1)
    assert json.loads(received)["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize("headers", [{}, NAMED])
@pytest.mark.parametrize("end", ["closes", "stays", "breaks"])
async def test_an_answer_is_whole_with_its_last_event_however_the_connection_ends(
    start: Start, end: str, headers: dict[str, str]
) -> None:
    over = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("Hi", "stop") + usage_event()) + DONE)
        if end == "stays":
            await over.wait()
        elif end == "breaks":
            await call.send(b"0\r\nno header\r\n\r\n")
        call.writer.close()

    async with rig_of(start, script) as (rig, upstream):
        async with asyncio.timeout(5.0):
            status, received, _ = await post(rig, STREAMED, headers)
            if end == "stays":
                # Its connection is not used again, and not left behind.
                await upstream.calls[0].left.wait()
        over.set()
        ends = rig.of_kind(AttemptFinished)
    assert (status, received) == (200, piece("Hi", "stop") + b"data: [DONE]\n\n")
    assert [one.outcome for one in ends] == ["ok"]
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_encoded_answer_that_nobody_asked_for_is_an_error_and_never_sent_on(
    start: Start, stream: bool
) -> None:
    async def script(call: Call) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        body = gzip.compress(piece("Hi", "stop") if stream else json.dumps(WHOLE).encode())
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: gzip\r\n" % kind
        await call.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    async with rig_of(start, script) as (rig, _):
        status, received, _ = await post(rig, STREAMED if stream else ASK)
    assert status == 502
    assert "'gzip'" in json.loads(received)["error"]["message"]


@pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"307 Temporary Redirect"])
async def test_what_is_neither_an_answer_nor_an_error_is_told_as_it_is(
    start: Start, status: bytes
) -> None:
    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 %b\r\nLocation: http://127.0.0.1:9/v1\r\n" % status)
        await call.send(b"\r\n" if status.startswith(b"204") else b"Content-Length: 0\r\n\r\n")

    async with rig_of(start, script) as (rig, upstream):
        answered, received, _ = await post(rig, ASK)
    message = json.loads(received)["error"]["message"]
    assert answered == 502
    assert status[:3].decode() in message
    assert ("redirects" in message) == status.startswith(b"3")
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_what_common_clients_can_read_is_handed_on(start: Start, stream: bool) -> None:
    """Half a character in each of two events, a probability that is none."""
    choice = b'{"index":0,"%b":{"content":"\\ud83d"},"logprobs":NaN,"finish_reason":"stop"}'
    told = b'{"choices":[' + choice % (b"delta" if stream else b"message") + b"]}"
    sent = b"data: " + told + b"\n\n"

    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(sent) + END if stream else whole(told))

    async with rig_of(start, script) as (rig, _):
        status, received, _ = await post(rig, STREAMED if stream else ASK)
        [ended] = rig.of_kind(AttemptFinished)
    assert status == 200
    assert received == (sent + b"data: [DONE]\n\n" if stream else told)
    assert ended.usage.output_tokens == 1


async def test_usage_that_common_clients_can_read_is_handed_on(start: Start) -> None:
    """A rate over no time at all."""
    usage = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"per_s":Infinity}}'

    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("Hi", "stop") + b"data: " + usage + b"\n\n") + END)

    async with rig_of(start, script) as (rig, _):
        asked = {**STREAMED, "stream_options": {"include_usage": True}}
        status, received, _ = await post(rig, asked)
        [ended] = rig.of_kind(AttemptFinished)
    assert (status, ended.outcome, ended.usage.output_tokens) == (200, "ok", 4)
    told = json.loads(received.split(b"\n\n")[1].removeprefix(b"data: "))
    assert told["usage"]["completion_tokens"] == 4
    assert told["usage"]["per_s"] is None


@pytest.mark.parametrize("headers", [{}, NUMBERED])
@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_thoughts_count_where_the_upstream_counts_nothing(
    start: Start, name: str, headers: dict[str, str]
) -> None:
    async def script(call: Call) -> None:
        thoughts = event({"delta": {name: "12345678"}}) * 10
        await call.send(STREAM + thoughts + chunk(piece("42", "stop")) + END)

    async with rig_of(start, script) as (rig, _):
        await post(rig, STREAMED, headers)
        [ended] = rig.of_kind(AttemptFinished)
    assert ended.usage.output_tokens == 21
    assert ended.usage.counting == "estimated"


@pytest.mark.parametrize("headers", [{}, NAMED])
@pytest.mark.parametrize(
    ("delta", "usage", "tokens"),
    [
        ({"content": "One piece of several tokens."}, None, 14),
        ({"reasoning_content": "1234"}, None, 2),
        ({"content": "ab"}, {"prompt_tokens": 9, "completion_tokens": 40}, 40),
    ],
)
async def test_an_answer_cut_off_costs_what_has_come_and_not_as_many_tokens_as_events(
    start: Start,
    delta: dict[str, str],
    usage: dict[str, int] | None,
    tokens: int,
    headers: dict[str, str],
) -> None:
    async def script(call: Call) -> None:
        more = {} if usage is None else {"usage": usage}
        await call.send(STREAM + event({"delta": delta}, **more) * 2)
        await call.left.wait()

    async with rig_of(start, script) as (rig, upstream):
        async with rig.http.post(
            "/v1/chat/completions", json=STREAMED, headers=headers
        ) as response:
            received = b""
            while received.count(b"data: ") < 2:
                received += await response.content.readany()
            response.close()
        await upstream.calls[0].left.wait()
        await rig.wait_for(AttemptFinished)
        [ended] = rig.of_kind(AttemptFinished)
    assert ended.outcome == "cancelled"
    assert ended.usage.output_tokens == tokens


async def test_a_name_written_in_escapes_does_not_hide_a_second_field(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(WHOLE).encode()))

    sent = b'{"model":"n","mod\\u0065l":"m","messages":[{"role":"user","content":"\\u00e9"}]}'
    plain = sent.replace(b'"model":"n",', b"").replace(b"mod\\u0065l", b"model")
    async with rig_of(start, script) as (rig, upstream):
        for body in (sent, plain):
            status, _, _ = await post(rig, body)
            assert status == 200
    hidden, untouched = (call.body for call in upstream.calls)
    assert hidden.count(b"model") == 1
    assert json.loads(hidden)["model"] == "m"
    assert untouched == plain
