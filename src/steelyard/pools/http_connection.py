"""One connection of an HTTP/1.1 client: answers handed on as they come.

Bytes are parsed by llhttp (httptools), but for a head that the server has sent before: servers
answer with the same one for seconds on end, but for the digits of the length.
"""

import asyncio
import socket
from typing import NamedTuple, Protocol, cast

import httptools

from steelyard.errors import (
    PoolError,
    PoolProtocolError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.dead_peers import notice_loss
from steelyard.pools.known_head import KnownHead, known_head

_MAX_HEAD_BYTES = 64 * 1024
# A server whose heads are never the same is not to cost more for it.
_LEARN_S = 0.05
_OK = 200

# What tells where an answer ends.
_LENGTHS = frozenset((b"content-length", b"transfer-encoding"))
_LENGTH_LENGTHS = frozenset(map(len, _LENGTHS))

Headers = list[tuple[bytes, bytes]]


class StaleConnectionError(PoolUnavailableError):
    """A reused connection ended before the first byte of an answer: nothing was answered."""


class AnswerHandler(Protocol):
    """Takes one answer; its methods are called while bytes are read and must not raise."""

    def head(self, status: int, headers: Headers) -> None:
        """Status and headers are here, in the server's spelling."""
        ...

    def data(self, piece: bytes) -> None:
        """The next bytes of the body are here."""
        ...

    def done(self, error: PoolError | None) -> None:
        """The answer is whole, or will not come for this reason."""
        ...


class KnownAnswer(NamedTuple):
    """An answer whose head may come again.

    Attributes:
        head: The head.
        headers: As they were parsed.
    """

    head: KnownHead
    headers: Headers


class Host(Protocol):
    """Whose connection it is.

    Attributes:
        url: The server, for messages.
        gap_s: Longest wait for the next bytes of an answer that has begun.
        known: The last head with status 200, for all connections.
        learned_s: When somebody looked for one, on the loop's clock.
    """

    url: str
    gap_s: float
    known: KnownAnswer | None
    learned_s: float

    def free(self, connection: "HttpConnection") -> None:
        """A connection can take another request."""
        ...

    def lost(self, connection: "HttpConnection") -> None:
        """A connection has ended."""
        ...


class HttpConnection(asyncio.Protocol):
    """One connection; `steelyard.pools.http_client.HttpHost` makes it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser = httptools.HttpResponseParser(self)
        self._handler: AnswerHandler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._headers: Headers = []
        self._head_bytes = 0
        self._status = 0
        self._until_eof = False
        self._answered = False
        self._reused = False
        self._heard_s = 0.0
        self._limit_s = 0.0
        self._due_s = 0.0
        self._paused = False
        self.idle_since_s = 0.0
        # No byte of the next answer has come; bytes that begin with a head.
        self._is_between = True
        self._first_bytes = b""

    # ------------------------------------------------------------- exchanges

    def send(self, head: bytes, body: bytes, handler: AnswerHandler, first_byte_s: float) -> None:
        """Send a request; its answer goes to `handler`."""
        if self._transport is None:
            handler.done(StaleConnectionError(f"{self._host.url} closed the connection."))
            return
        self._handler = handler
        self._answered = False
        self._head_bytes = 0
        self._limit_s = first_byte_s
        self._heard_s = self._loop.time()
        # The limit becomes the gap's with the head; a look too early costs little.
        look_s = min(first_byte_s, self._host.gap_s)
        due_s = self._heard_s + look_s
        if self._timer is None or due_s < self._due_s:
            self._set_timer(due_s)
        self._transport.write(head + body)

    def pause(self) -> None:
        """Read nothing more until `resume`; the server is held back by TCP."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._heard_s = self._loop.time()
            self._transport.resume_reading()

    def drop(self, handler: AnswerHandler) -> None:
        """Cut the connection unless the answer is whole, which stops the work upstream at once."""
        if self._handler is handler:
            self.abort()

    def abort(self) -> None:
        """Cut the connection; nobody is told."""
        self._handler = None
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    # ------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_loss(sock)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, by whomever."""
        self._transport = None
        # It holds this one: without a cycle both go at once.
        self._parser = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        self._stop_timer()
        self._host.lost(self)
        if self._handler is None:
            return
        if self._until_eof and self._answered and exc is None:
            self._end(None)
            return
        if exc is not None and not isinstance(exc, ConnectionError):
            # Not closed, but lost: another connection to it would be lost, too.
            self._end(PoolUnavailableError(f"{self._host.url} is not heard any more: {exc}."))
            return
        kind = StaleConnectionError if self._reused and not self._answered else PoolUnavailableError
        what = "broke off its answer" if self._answered else "closed the connection"
        self._end(kind(f"{self._host.url} {what}."))

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._handler is None:
            # Nothing was asked for: whatever this is, it must not become the next answer.
            self.abort()
            return
        self._heard_s = self._loop.time()
        if self._is_between:
            known = self._host.known
            body = None if known is None else known.head.body_in(data)
            if known is not None and body is not None:
                self._take_known(known.headers, body, self._handler)
                return
            self._first_bytes = data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(PoolProtocolError(f"{self._host.url} speaks no HTTP: {error}."))
        if not self._answered:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._fail(PoolProtocolError(f"{self._host.url} sent headers without end."))

    def _take_known(self, headers: Headers, body: bytes, handler: AnswerHandler) -> None:
        """A whole answer is here, whose head was parsed before."""
        self._answered = True
        handler.head(_OK, headers)
        handler.data(body)
        self._end(None)
        self._go_idle()

    def _learn(self, data: bytes) -> None:
        """A head was parsed that may come again, on this connection or another one."""
        host = self._host
        if self._heard_s - host.learned_s > _LEARN_S:
            host.learned_s = self._heard_s
            head = known_head(data, self._headers)
            host.known = None if head is None else KnownAnswer(head, self._headers)

    def _go_idle(self) -> None:
        if self._handler is None and self.is_open:
            self._reused = True
            self._host.free(self)

    # ------------------------------------------------------ httptools' events

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._is_between = False
        if self._handler is None:
            # A second answer to one request would be taken for the answer to the next one.
            self.abort()
        self._headers = []
        self._until_eof = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is here."""
        # By length first: most names are neither.
        if len(name) in _LENGTH_LENGTHS and name.lower() in _LENGTHS:
            self._until_eof = False
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """All headers are here."""
        self._status = self._parser.get_status_code()
        if self._status < 200 or self._handler is None:
            return
        self._answered = True
        self._limit_s = self._host.gap_s
        first, self._first_bytes = self._first_bytes, b""
        if first and self._status == _OK and self._parser.should_keep_alive():
            self._learn(first)
        self._handler.head(self._status, self._headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body is here, chunk by chunk as the server sent it."""
        if self._handler is not None:
            self._handler.data(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._is_between = True
        if self._status < 200 or self._handler is None:
            return
        keep = self._parser.should_keep_alive() and not self._until_eof
        self._end(None)
        if keep and self.is_open:
            self._reused = True
            self._host.free(self)
        elif self._transport is not None:
            self._transport.close()

    # --------------------------------------------------------------- private

    def _look_at_clock(self) -> None:
        """The one timer of a connection; it is moved on only when it fires."""
        left_s = self._heard_s + self._limit_s - self._loop.time()
        self._timer = None
        if self._handler is None:
            return
        if self._paused:
            left_s = self._limit_s
        left_s = min(left_s, self._host.gap_s)
        if left_s > 0.001:
            self._set_timer(self._loop.time() + left_s)
            return
        self._fail(PoolTimeoutError(f"{self._host.url} sent nothing for {self._limit_s:g} s."))

    def _fail(self, error: PoolError) -> None:
        self._end(error)
        self.abort()

    def _end(self, error: PoolError | None) -> None:
        # Its timer stays for the next exchange: to set and cancel one for each is dearer.
        if self._paused:
            self.resume()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.done(error)

    def _set_timer(self, due_s: float) -> None:
        self._stop_timer()
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._look_at_clock)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
