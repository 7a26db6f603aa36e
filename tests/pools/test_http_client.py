"""The HTTP client against upstreams that are wrong, slow or hostile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from tests.gateway.raw_upstream import Call, Script, raw_upstream, whole

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolUnavailableError,
)
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.http_client import HttpHost, HttpRequest, header_lines
from steelyard.pools.relay import WholeBody

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ASK = HttpRequest("POST", "/x", b"{}")


@asynccontextmanager
async def host_of(script: Script, connections: int = 8) -> AsyncGenerator[HttpHost]:
    async with raw_upstream(script) as (_, url):
        host = HttpHost(url, [("X-Pool", "1")], 5.0, 5.0, connections)
        try:
            yield host
        finally:
            host.close()


async def ask(host: HttpHost) -> WholeBody:
    handler = WholeBody(ErrorReader(host.url, ""))
    connection = await host.send(ASK, handler, 5.0)
    try:
        async with asyncio.timeout(5.0):
            await handler.ended()
    finally:
        connection.drop(handler)
    return handler


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (whole(b"abc"), b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + whole(b"abc"), b"abc"),
    ],
)
async def test_reads_a_body_however_it_is_framed(sent: bytes, body: bytes) -> None:
    async def script(call: Call) -> None:
        await call.send(sent)
        call.writer.close()

    async with host_of(script) as host:
        assert (await ask(host)).body == body


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"no http at all\r\n\r\n", PoolProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000, PoolProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", PoolUnavailableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", PoolError),
        (b"", PoolUnavailableError),
    ],
)
async def test_calls_broken_answers_by_their_name(sent: bytes, error: type[PoolError]) -> None:
    async def script(call: Call) -> None:
        await call.send(sent)
        call.writer.close()

    async with host_of(script) as host:
        with pytest.raises(error):
            await ask(host)


async def test_a_second_answer_to_one_request_never_answers_the_next_one() -> None:
    async def script(call: Call) -> None:
        await call.send(whole(b"mine") + whole(b"poison"))

    async with host_of(script) as host:
        for _ in range(3):
            assert (await ask(host)).body == b"mine"


async def test_refuses_more_connections_than_allowed() -> None:
    hold = asyncio.Event()

    async def script(call: Call) -> None:
        await hold.wait()
        await call.send(whole(b"abc"))

    async with host_of(script, connections=1) as host:
        first = asyncio.create_task(ask(host))
        async with asyncio.timeout(5.0):
            while not host._open:  # pyright: ignore[reportPrivateUsage]  # noqa: ASYNC110
                await asyncio.sleep(0)
        with pytest.raises(PoolOverloadedError):
            await ask(host)
        hold.set()
        assert (await first).body == b"abc"


@pytest.mark.parametrize("header", [("X\r\nY", "1"), ("X", "1\r\nY: 2"), ("X", "a\nb"), ("", "1")])
def test_refuses_headers_that_would_end_their_line(header: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="no header can hold"):
        header_lines([header])
