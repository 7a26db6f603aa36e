"""HTTP on the wire: requests under /v1 without ASGI, every other path as uvicorn serves it.

One protocol class serves both, on one port: uvicorn's, extended. What is under /v1 becomes an
`Exchange` when its head is whole and a task when its body is; the rest goes to the ASGI
application of the control plane, so that ordinary code stays ordinary. Here, too, are the bounds
that uvicorn lacks: size and time of the head, size and time of the body.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

from steelyard.errors import SteelyardError
from steelyard.gateway.answering import AnsweringProtocol, Serve, ServeNow
from steelyard.gateway.errors_http import RequestError, error_response, too_large
from steelyard.gateway.exchange import Exchange, RequestHeaders, json_lines
from steelyard.gateway.known_head import KnownRequest, known_request
from steelyard.gateway.settings import GatewayLimits

DATA_PLANE = b"/v1/"
# So much of a body is read on to answer a refused request properly; then the connection ends.
_REFUSED_BODY_BYTES = 256 * 1024

Admit = Callable[[Exchange], None]


class GatewayProtocol(AnsweringProtocol):
    """One connection of a client.

    `limits`, `admit` and `serve` are set by `gateway_protocol`, because uvicorn makes the
    instances: `admit` refuses by the head alone, `serve` answers.
    """

    parser: httptools.HttpRequestParser
    admit: Admit
    _head_bytes = 0
    # Since the last byte of a body: extensions of chunks, trailers.
    _silent_bytes = 0
    # The one whose body is being read.
    _reading: Exchange | None = None
    # No byte of the next request has come; the head of the last one; bytes that begin with a head.
    _is_between = True
    _known: KnownRequest | None = None
    _first_bytes = b""

    # ------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._start_timer(self.limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and the work on the answer."""
        self._stop_timer()
        self.pipeline.clear()
        super().connection_lost(exc)
        if self._running is not None:
            self._running.set()
        # uvicorn leaves it where the client reset the connection.
        self._unset_keepalive_if_required()
        # They hold this one: what its clock keeps alive for a minute grows so old that the garbage
        # collector, which looks seldom here, would not come for it within the hour.
        self._running = self._reading = self._known = None
        self.cycle = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        """Take bytes; refuse a head that grows without end."""
        if self._refused:
            return
        if self._is_between:
            known = self._known
            body = None if known is None else known.head.body_in(data)
            if known is not None and body is not None and len(body) <= self.limits.body_bytes:
                self._serve_known(known, body)
                return
            self._first_bytes = data
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._silent_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._break_off(400, "the request is not valid HTTP/1.1")
        except httptools.HttpParserUpgrade:
            self._break_off(400, "protocol upgrades are not served; send plain HTTP/1.1")
        self._watch_progress()

    def _serve_known(self, known: KnownRequest, body: bytes) -> None:
        """A whole request is here, whose head was parsed before."""
        if self._timer is not None:
            self._stop_timer()
        exchange = Exchange(self, known.line, known.headers, keep_alive=True)
        exchange.started_s = self.loop.time()
        exchange.body = body
        try:
            self._check_room()
            type(self).admit(exchange)
        except RequestError as error:
            exchange.refuse(error)
        self._take_turn(exchange)

    def _watch_progress(self) -> None:
        """Start the clock of what has not come whole, and bound the head."""
        if self._refused or self.transport.is_closing():
            return
        if not self._in_head:
            if self._silent_bytes > self.limits.head_bytes:
                self._break_off_body()
            elif self._timer is None:
                self._start_timer(self._part_timeout_s())
        elif self._head_bytes > self.limits.head_bytes:
            self._break_off(431, "the head of the request is too long")
        elif self._head_bytes and self._timer is None:
            self._start_timer(self._part_timeout_s())

    # ------------------------------------------------------ httptools' events

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_between = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """The head is whole: is this for the data plane?"""
        self._in_head = False
        self._silent_bytes = 0
        self._stop_timer()
        first, self._first_bytes = self._first_bytes, b""
        if not self.url.startswith(DATA_PLANE):
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers.extend(headers)
            super().on_headers_complete()
            return
        parser = self.parser
        version = parser.get_http_version()
        path = self.url.partition(b"?")[0].partition(b"#")[0].decode("latin-1")
        line = (parser.get_method().decode("latin-1"), path, version)
        keep_alive = version != "1.0" and parser.should_keep_alive()
        exchange = Exchange(self, line, RequestHeaders(self.headers), keep_alive=keep_alive)
        # Of two requests in one piece, only the first is at its beginning.
        self._known = known_request(first, line, self.headers) if first and keep_alive else None
        exchange.started_s = self.loop.time()
        self._reading = exchange
        try:
            self._check_room()
            type(self).admit(exchange)
        except RequestError as error:
            exchange.refuse(error)
        if self.expect_100_continue:
            if exchange.refusal is not None:
                # Its body has not been sent, and now never will be.
                self._give_up(exchange, exchange.refusal)
            elif not self._is_busy():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of a body is here."""
        self._silent_bytes = 0
        exchange = self._reading
        if exchange is None:
            if not self._refused:
                super().on_body(body)
            return
        exchange.size_bytes += len(body)
        if exchange.refusal is not None:
            if exchange.size_bytes > _REFUSED_BODY_BYTES:
                self._give_up(exchange, exchange.refusal)
        elif exchange.size_bytes > self.limits.body_bytes:
            self._give_up(exchange, too_large(exchange.size_bytes, self.limits.body_bytes))
        else:
            exchange.add_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next bytes are the head of the next one."""
        self._in_head = True
        self._is_between = True
        self._head_bytes = 0
        self._stop_timer()
        exchange, self._reading = self._reading, None
        if exchange is None:
            if not self._refused:
                super().on_message_complete()
            return
        exchange.body_is_whole()
        self._take_turn(exchange)

    # ---------------------------------------------------------------- private

    def _check_room(self) -> None:
        limit = self.limits.max_connections
        if len(self.connections) > limit or len(self.tasks) >= limit:
            raise RequestError(
                f"the gateway has {limit} connections already; try again in a second",
                status=503,
                code="too_many_connections",
                headers=[(b"retry-after", b"1"), (b"connection", b"close")],
            )

    def _give_up(self, exchange: Exchange, error: RequestError) -> None:
        """Refuse a request whose rest will not be read: the connection ends with it."""
        self._reading = None
        self._refuse(exchange, error)

    def _break_off(self, status: int, why: str) -> None:
        exchange, self._reading = self._reading, None
        error = RequestError(f"{why}; the connection is closed", status=status, code="bad_http")
        if exchange is None:
            line = ("GET", "", "1.1")
            exchange = Exchange(self, line, RequestHeaders(()), keep_alive=False)
        self._refuse(exchange, error)

    def _break_off_body(self) -> None:
        """Extensions and trailers without end: the parser keeps them, and no clock is so fast."""
        if self._reading is None:
            # The application waits for the rest, or answers already.
            self.transport.close()
        else:
            self._break_off(431, "the body has too much around it")

    def _refuse(self, exchange: Exchange, error: SteelyardError) -> None:
        self._stop_timer()
        self._refused = True
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            # An answer is on its way: it goes out, and nothing behind it.
            self.pipeline.clear()
            cycle.keep_alive = False
            return
        if self.transport.is_closing():
            return
        told = error_response(error)
        exchange.keep_alive = False
        lines = json_lines([pair for pair in told.headers if pair[0] != b"connection"])
        exchange.respond(told.status, told.encoded(), lines)

    def _too_slow(self) -> None:
        """Head or body did not come in time."""
        self._timer = None
        if self.flow.read_paused:
            # It is we who do not read: the answer before it is still under way.
            self._start_timer(self._part_timeout_s())
            return
        exchange, self._reading = self._reading, None
        if exchange is None:
            self.transport.close()
            return
        msg = f"the request body did not arrive within {self.limits.body_timeout_s:g} s"
        self._give_up(exchange, RequestError(msg, status=408))


def gateway_protocol(
    limits: GatewayLimits, admit: Admit, serve: Serve, serve_now: ServeNow = lambda _: False
) -> type[GatewayProtocol]:
    """The protocol class for one gateway.

    Args:
        limits: Bounds of requests.
        admit: Raises RequestError for what is refused by its head alone.
        serve: Answers a request of the data plane.
        serve_now: Answers it without a task, if it can; says whether it does.

    Returns:
        A class to hand to uvicorn.
    """
    held = {
        "limits": limits,
        "admit": staticmethod(admit),
        "serve": staticmethod(serve),
        "serve_now": staticmethod(serve_now),
    }
    return type("GatewayProtocol", (GatewayProtocol,), held)
