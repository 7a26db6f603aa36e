"""An HTTP/1.1 client for one server: connections pooled, bounded and reused, answers as they come.

It does what a gateway needs and no more: whole request bodies, answers handed on piece by piece in
the callback that received them, a wait limit for the first byte and for every gap, reading that can
be paused, and a connection that is cut at once when nobody wants the answer any more. Bytes are
parsed by llhttp (httptools). Redirects, cookies, proxies and content encodings are left out.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import httptools

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolTimeoutError,
    PoolUnavailableError,
)

_MAX_HEAD_BYTES = 64 * 1024
# Servers close unused connections after 5 s (uvicorn, vLLM) or later; one of them may just be
# closing as we send, which `StaleConnectionError` tells.
_IDLE_S = 30.0
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")

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


class HttpRequest(NamedTuple):
    """A request.

    Attributes:
        method: HTTP method.
        path: Path below the base URL.
        body: JSON; None for none.
        more: Further headers, by `header_lines`.
    """

    method: str
    path: str
    body: bytes | None = None
    more: bytes = b""


class HttpConnection(asyncio.Protocol):
    """One connection. `HttpHost` makes it."""

    def __init__(self, host: "HttpHost") -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
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

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, by whomever."""
        self._transport = None
        self._stop_timer()
        self._host.lost(self)
        if self._handler is None:
            return
        if self._until_eof and self._answered and exc is None:
            self._end(None)
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
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(PoolProtocolError(f"{self._host.url} speaks no HTTP: {error}."))
        if not self._answered:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._fail(PoolProtocolError(f"{self._host.url} sent headers without end."))

    # ------------------------------------------------------ httptools' events

    def on_message_begin(self) -> None:
        """An answer begins."""
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
        self._handler.head(self._status, self._headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body is here, chunk by chunk as the server sent it."""
        if self._handler is not None:
            self._handler.data(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
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


class HttpHost:
    """All connections to one server.

    Args:
        base_url: `http(s)://HOST[:PORT]/PATH`, checked.
        headers: Sent with every request.
        connect_s: Longest wait for a connection.
        gap_s: Longest wait for the next bytes of an answer that has begun.
        max_connections: At once; a request beyond gets PoolOverloadedError.

    Raises:
        ConfigError: A header cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        headers: Iterable[tuple[str, str]],
        connect_s: float,
        gap_s: float,
        max_connections: int,
    ) -> None:
        parts = urlsplit(base_url)
        self.url = base_url
        self.gap_s = gap_s
        self._is_tls = parts.scheme == "https"
        self._name = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._path = parts.path.rstrip("/")
        self._connect_s = connect_s
        self._max_connections = max_connections
        host = parts.netloc.encode("ascii" if parts.netloc.isascii() else "idna")
        self._common = b"Host: " + host + b"\r\n" + header_lines(headers)
        self._tls: ssl.SSLContext | None = None
        self._idle: deque[HttpConnection] = deque()
        self._open: set[HttpConnection] = set()
        self._opening = 0
        self._heads: dict[tuple[str, str], bytes] = {}
        self._post_heads: dict[str, bytes] = {}

    async def send(
        self,
        request: HttpRequest,
        handler: AnswerHandler,
        first_byte_s: float,
        *,
        fresh: bool = False,
    ) -> HttpConnection:
        """Send a request on a free or new connection.

        Args:
            request: What is asked.
            handler: Takes the answer.
            first_byte_s: Longest wait for the head of the answer.
            fresh: Whether it must be a new connection.

        Returns:
            The connection, to pause or to cut while the answer comes.

        Raises:
            PoolUnavailableError: No connection could be made.
            PoolOverloadedError: There are too many connections already.
        """
        body = request.body
        head = self._head(request.method, request.path) + request.more
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        connection = (None if fresh else self._take()) or await self._connect()
        connection.send(head + b"\r\n", body or b"", handler, first_byte_s)
        return connection

    def send_now(
        self, path: str, body: bytes, handler: AnswerHandler, first_byte_s: float
    ) -> HttpConnection | None:
        """Send a POST on a free connection, within this very call.

        Args:
            path: Path below the base URL.
            body: JSON.
            handler: Takes the answer.
            first_byte_s: Longest wait for the head of the answer.

        Returns:
            The connection; None where none is free, and nothing was sent.
        """
        connection = self._take()
        if connection is not None:
            head = self._post_heads.get(path) or self._post_head(path)
            connection.send(head % len(body), body, handler, first_byte_s)
        return connection

    def _post_head(self, path: str) -> bytes:
        head = self._head("POST", path).replace(b"%", b"%%")
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._post_heads[path] = head
        return head

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.abort()

    def free(self, connection: HttpConnection) -> None:
        """A connection can take another request."""
        now_s = time.monotonic()
        connection.idle_since_s = now_s
        self._idle.append(connection)
        if now_s - self._idle[0].idle_since_s > _IDLE_S:
            self._idle.popleft().abort()

    def lost(self, connection: HttpConnection) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _head(self, method: str, path: str) -> bytes:
        head = self._heads.get((method, path))
        if head is None:
            line = f"{method} {self._path}{path} HTTP/1.1\r\n".encode("ascii")
            head = self._heads[(method, path)] = line + self._common
        return head

    def _take(self) -> HttpConnection | None:
        # The one used last first, so that those above the need grow old and are closed.
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self) -> HttpConnection:
        if len(self._open) + self._opening >= self._max_connections:
            raise PoolOverloadedError(
                f"{self.url} has {self._max_connections} requests under way; try again in 1 s",
                retry_after_s=1.0,
            )
        if self._is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: HttpConnection(self), self._name, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            raise PoolUnavailableError(
                f"{self.url} took no connection within {self._connect_s:g} s."
            ) from error
        except (OSError, UnicodeError) as error:
            raise PoolUnavailableError(f"{self.url} is not reachable: {error}") from error
        finally:
            self._opening -= 1
        self._open.add(connection)
        return connection


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    r"""Headers as they are sent.

    Args:
        headers: Names and values.

    Returns:
        Lines, each with its end.

    Raises:
        ConfigError: A name or value could end its line, or is no header.

    >>> header_lines([("X-Pool", "1")])
    b'X-Pool: 1\r\n'
    """
    lines: list[str] = []
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"The header {name[:40]!r} has characters that no header can hold.")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")
