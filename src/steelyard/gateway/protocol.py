"""uvicorn's HTTP protocol with bounds on the head of a request, which it lacks."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from steelyard.gateway.settings import GatewayLimits

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose request line and headers are too long, or come too slowly.

    `limits` is set by `bounded_protocol`, because uvicorn makes the instances.
    """

    limits = GatewayLimits()
    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and refuse a head that grows without end."""
        if self._in_head:
            self._start_head_timer()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are the head of the next request."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self.limits.head_timeout_s, self.timeout_keep_alive_handler
            )

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def bounded_protocol(limits: GatewayLimits) -> type[BoundedHttpProtocol]:
    """The protocol class with these limits.

    Args:
        limits: Bounds of the head.

    Returns:
        A class to hand to uvicorn.
    """
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"limits": limits})
