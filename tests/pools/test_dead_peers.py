"""A host that is gone refuses nothing; TCP's own silence tells."""

import socket
import sys

import pytest
from tests.gateway.raw_upstream import Call, raw_upstream, whole

from steelyard.errors import PoolError, PoolUnavailableError
from steelyard.pools.dead_peers import SILENCE_S, notice_loss
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.http_client import HttpHost, HttpRequest
from steelyard.pools.http_connection import StaleConnectionError
from steelyard.pools.relay import WholeBody


@pytest.mark.skipif(sys.platform != "linux", reason="other systems lack some of the options")
def test_the_kernel_ends_connections_to_hosts_that_are_silent() -> None:
    with socket.socket() as sock:
        notice_loss(sock)
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == int(1000 * SILENCE_S)
        asked_s = sock.getsockopt(tcp, socket.TCP_KEEPIDLE) + sock.getsockopt(
            tcp, socket.TCP_KEEPINTVL
        ) * sock.getsockopt(tcp, socket.TCP_KEEPCNT)
        assert asked_s == SILENCE_S


@pytest.mark.parametrize(
    ("lost", "is_stale"),
    [(TimeoutError(110, "timed out"), False), (ConnectionResetError(104, "reset"), True)],
)
async def test_a_lost_host_is_unavailable_and_not_asked_again_at_once(
    lost: OSError, is_stale: bool
) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(b"{}"))

    async with raw_upstream(script) as (_, url):
        host = HttpHost(url, (), 5.0, 5.0, 8)
        ask = HttpRequest("POST", "/x", b"{}")
        first = WholeBody(ErrorReader(url, ""))
        connection = await host.send(ask, first, 5.0)
        await first.ended()
        second = WholeBody(ErrorReader(url, ""))
        assert await host.send(ask, second, 5.0) is connection
        connection.connection_lost(lost)
        with pytest.raises(PoolUnavailableError) as found:
            await second.ended()
        error: PoolError = found.value
        assert isinstance(error, StaleConnectionError) == is_stale
        host.close()
