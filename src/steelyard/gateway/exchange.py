"""One HTTP request and its response, as the data plane sees them.

This is the only file of the data plane that knows ASGI: a protocol class that parses HTTP itself
can offer the same few methods.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from steelyard.gateway.errors_http import Headers, RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON_TYPE = (b"content-type", b"application/json")
# x-accel-buffering keeps a proxy in front of us from holding tokens back.
_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Exchange:
    """One request and its response.

    Attributes:
        method: HTTP method.
        path: Path of the URL, percent signs decoded.
        status: Status that was sent, 0 before.
        finished: Whether the response is complete, or its last part is being sent.
        left: Whether the client left before that.
        step_key: Task and number of the step that the request became, for the access log.
        pool: Where the step was placed, for the access log.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.status = 0
        self.finished = False
        self.left = False
        self.step_key: tuple[str, int] | None = None
        self.pool = ""
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str | None:
        """What is the value of a request header?

        Args:
            name: In lower case.

        Returns:
            The value, None where the header is missing.

        Raises:
            RequestError: The header comes twice with different values.
        """
        values = {value for key, value in self._headers if key == name}
        if len(values) > 1:
            told = name.decode("latin-1")
            msg = f"header {told} was sent {len(values)} times with different values; send one"
            raise RequestError(msg, param=told)
        return values.pop().decode("latin-1").strip() if values else None

    async def body(self, max_bytes: int, timeout_s: float) -> bytes:
        """Read the request body.

        Args:
            max_bytes: Longest body taken.
            timeout_s: Seconds in which all of it must arrive.

        Returns:
            The whole body.

        Raises:
            RequestError: The body is too long, too slow or encoded, or the client left.
        """
        if (self.header(b"content-encoding") or "identity").lower() != "identity":
            told = f"content-encoding {self.header(b'content-encoding')!r} is not read; send plain"
            raise RequestError(told, status=415, param="content-encoding")
        declared = self.header(b"content-length") or "0"
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(int(declared), max_bytes)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(max_bytes)
        except TimeoutError as error:
            msg = f"the request body did not arrive within {timeout_s:g} s"
            raise RequestError(msg, status=408, headers=[(b"connection", b"close")]) from error

    async def _read(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RequestError("the client left before its request was complete", status=499)
            part: bytes = message.get("body", b"")
            size_bytes += len(part)
            if size_bytes > max_bytes:
                raise _too_large(size_bytes, max_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def gone(self) -> None:
        """Wait until the client has left, or the response is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Send a whole response.

        Args:
            status: HTTP status.
            body: JSON unless `headers` hold another content-type.
            headers: Further headers, names in lower case.
        """
        sent = [*headers, (b"content-length", str(len(body)).encode())]
        if not any(name == b"content-type" for name, _ in sent):
            sent.append(JSON_TYPE)
        self.status = status
        self.finished = True
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin_stream(self, headers: Headers) -> None:
        """Start a response of server-sent events.

        Args:
            headers: Further headers, names in lower case.
        """
        self.status = 200
        sent = [*_STREAM_HEADERS, *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": sent})

    async def write(self, data: bytes) -> None:
        """Send a part of a streamed response; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        """Send the last part of a streamed response."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def _too_large(size_bytes: int, max_bytes: int) -> RequestError:
    # The unread rest of the body would be taken for the next request.
    return RequestError(
        f"the request body has {size_bytes} bytes or more, the limit is {max_bytes}",
        status=413,
        code="request_too_large",
        headers=[(b"connection", b"close")],
    )
