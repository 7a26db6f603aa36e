"""An HTTP/1.1 client for one server: connections pooled, bounded, reused; answers as they come.

It does what a gateway needs and no more: whole request bodies, answers handed on piece by piece in
the callback that received them, a wait limit for the first byte and for every gap, reading that can
be paused, and a connection that is cut at once when nobody wants the answer any more. Redirects,
cookies, proxies and content encodings are left out.
"""

import asyncio
import contextlib
import math
import re
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from steelyard.errors import ConfigError, PoolOverloadedError, PoolUnavailableError
from steelyard.pools.http_connection import AnswerHandler, HttpConnection, KnownAnswer

# Servers close unused connections after 5 s (uvicorn, vLLM) or later; one of them may just be
# closing as we send, which `StaleConnectionError` tells.
_IDLE_S = 30.0
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")


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
        self.known: KnownAnswer | None = None
        self.learned_s = -math.inf
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
        connection = HttpConnection(self)
        try:
            async with asyncio.timeout(self._connect_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, self._name, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            raise PoolUnavailableError(
                f"{self.url} took no connection within {self._connect_s:g} s."
            ) from error
        except (OSError, UnicodeError) as error:
            raise PoolUnavailableError(
                f"{self.url} is not reachable: {error}; start it, or correct its address"
            ) from error
        else:
            self._open.add(connection)
            return connection
        finally:
            self._opening -= 1
            if connection not in self._open:
                # uvloop closes what is given up on the way without a word.
                connection.connection_lost(None)


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
