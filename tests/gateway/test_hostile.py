"""Nothing on the wire breaks the gateway, is taken for two things, or is answered by a 500."""

import asyncio
import logging
import random
import re
from typing import Any

import msgspec
import pytest
from tests.gateway.conftest import Rig, Start
from tests.gateway.hostile import BODY, hostile_request, pieces

from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

LIMITS = GatewayLimits(
    head_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0, head_bytes=16_384, body_bytes=100_000
)
_STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ")


async def exchange(rig: Rig, parts: list[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
    try:
        async with asyncio.timeout(5.0):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def fuzz(rig: Rig, seed: int, count: int) -> None:
    """Send so many hostile requests; each answer is none, or HTTP and no 500."""
    chance = random.Random(seed)  # noqa: S311
    for _ in range(-(-count // 20)):
        sent = [hostile_request(chance) for _ in range(20)]
        tasks = [exchange(rig, pieces(chance, one)) for one in sent]
        for whole, answer in zip(sent, await asyncio.gather(*tasks), strict=True):
            found = _STATUS.match(answer)
            assert not answer or found, (whole, answer)
            assert found is None or int(found.group(1)) not in {500, 501, 502, 504}, (whole, answer)


async def test_hostile_requests_are_refused_and_change_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with start(settings=GatewaySettings(limits=LIMITS)) as rig:
        await fuzz(rig, seed=11, count=600)
        async with rig.http.post("/v1/chat/completions", data=BODY) as response:
            assert response.status == 200
        assert rig.dispatcher.state.running_on("lab", 0) == 0
    assert "Traceback" not in caplog.text
    assert "Exception" not in caplog.text


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"Content-Length: 0, 44\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"X: a\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/healthz"])
async def test_no_request_hides_in_the_body_of_another(
    start: Start, framing: bytes, path: bytes
) -> None:
    pool = ScriptedLlmPool()
    async with start(pool, settings=GatewaySettings(limits=LIMITS)) as rig:
        head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
        answer = await exchange(rig, [head + framing + SMUGGLED])
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1, answer
    # The control plane may have begun to refuse the path before the framing went wrong.
    assert answer.startswith(b"HTTP/1.1 400") or path == b"/healthz", answer
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert path == b"/healthz" or b"connection: close" in answer.lower()
    assert not pool.requests


async def test_pipelined_requests_of_both_planes_are_answered_in_order(start: Start) -> None:
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    chat = post % len(BODY) + BODY
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with start() as rig:
        answer = await exchange(rig, [chat + health + chat + health + last])
    found = re.findall(rb'"object":"(chat\.completion|list)"|"(alive)"', answer)
    assert [one or two for one, two in found] == [
        *(b"chat.completion", b"alive", b"chat.completion", b"alive", b"list")
    ]


async def test_a_request_that_waits_unread_behind_a_slow_answer_is_not_given_up(
    start: Start,
) -> None:
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n"
    chat = post % (len(BODY), b"") + BODY
    last = post % (len(BODY), b"Connection: close\r\n") + BODY
    go_on = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=go_on),))
    async with start(pool, settings=GatewaySettings(limits=LIMITS)) as rig:
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
        # The gateway stops reading behind the second one, in the middle of the third one.
        writer.write(chat + chat + last[:-5])
        # Another one, whose turn it is, is given up meanwhile: so much time has passed.
        assert (await exchange(rig, [last[:-5]])).startswith(b"HTTP/1.1 408")
        go_on.set()
        writer.write(last[-5:])
        async with asyncio.timeout(5.0):
            answer = await reader.read()
        writer.close()
    assert len(re.findall(rb"HTTP/1\.1 200 ", answer)) == 3


@pytest.mark.parametrize(("headers", "status"), [({}, 100), ({"Content-Encoding": "gzip"}, 415)])
async def test_a_client_that_waits_for_100_continue_gets_it_or_the_refusal(
    start: Start, headers: dict[str, str], status: int
) -> None:
    lines = {"Host": "localhost", "Expect": "100-continue", "Content-Length": str(len(BODY))}
    told = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **headers}.items())
    async with start() as rig:
        reader, writer = await asyncio.open_connection(rig.server.host, rig.server.port)
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{told}\r\n".encode())
        async with asyncio.timeout(5.0):
            line = await reader.readuntil(b"\r\n")
        assert line.startswith(b"HTTP/1.1 %d" % status)
        writer.close()


async def test_a_body_that_never_ends_is_given_up_on_every_path(start: Start) -> None:
    async with start(settings=GatewaySettings(limits=LIMITS)) as rig:
        for path in (b"/healthz", b"/nope", b"/v1/nope", b"/v1/chat/completions"):
            head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            # `exchange` fails when the connection stays open.
            assert (await exchange(rig, [head, b"{"])).startswith(b"HTTP/1.1 4"), path


@pytest.mark.parametrize("path", [b"/healthz", b"/v1/nope", b"/v1/chat/completions"])
@pytest.mark.parametrize("around", [b"0\r\n", b"0\r\nX: ", b"5;"])
async def test_what_stands_around_a_body_is_bounded(
    start: Start, path: bytes, around: bytes
) -> None:
    """Trailers and extensions of chunks: neither a head nor a body, and kept by the parser."""
    limits = msgspec.structs.replace(LIMITS, head_timeout_s=60.0, body_timeout_s=60.0)
    async with start(settings=GatewaySettings(limits=limits)) as rig:
        head = (
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        more = b"X-T: a\r\n" * 100 if around == b"0\r\n" else b"a" * 800
        sent = [head, b"%x\r\n%b\r\n" % (len(BODY), BODY), around, *[more] * 1000]
        # `exchange` fails when the connection stays open.
        answer = await exchange(rig, sent)
        assert not answer or path == b"/healthz" or answer.startswith(b"HTTP/1.1 431")
        # Those of a usual size are taken.
        usual = b"%x;a=b\r\n%b\r\n0\r\nX-T: a\r\n\r\n" % (len(BODY), BODY)
        close = head.replace(b"Host", b"Connection: close\r\nHost")
        answer = await exchange(rig, [close + usual])
        assert answer.startswith(
            b"HTTP/1.1 200" if path.endswith(b"completions") else b"HTTP/1.1 40"
        )


async def test_one_who_may_not_ask_is_told_before_the_body_is_kept(start: Start) -> None:
    settings = GatewaySettings(api_keys=("k",), limits=LIMITS)
    async with start(settings=settings) as rig:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n"
        answer = await exchange(rig, [head, b" " * 300_000])
    assert answer.startswith(b"HTTP/1.1 401")


async def test_more_connections_than_allowed_get_503(start: Start) -> None:
    limits = GatewayLimits(max_connections=1)
    async with start(settings=GatewaySettings(limits=limits)) as rig:
        _, first = await asyncio.open_connection(rig.server.host, rig.server.port)
        _, second = await asyncio.open_connection(rig.server.host, rig.server.port)
        last = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        statuses: set[Any] = set()
        async with asyncio.timeout(5.0):
            while 503 not in statuses:
                answer = await exchange(rig, [last])
                statuses.add(int(answer[9:12]))
        first.close()
        second.close()
