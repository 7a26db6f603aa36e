"""One HTTP request and its response, as the data plane and the control plane see them."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from steelyard.gateway.errors_http import Headers, RequestError
from steelyard.gateway.generation import Generation
from steelyard.gateway.keys_use import KeyUse
from steelyard.pools.backend import ReadFlow

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# x-accel-buffering keeps a proxy in front of us from holding tokens back.
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
_JSON_LINE = b"content-type: application/json\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class HttpRequest(Protocol):
    """What a check needs to know of a request."""

    @property
    def path(self) -> str:
        """Path of the URL."""
        ...

    def header(self, name: bytes) -> str | None:
        """The value of a request header, by its name in lower case."""
        ...


class RequestHeaders:
    """Headers of a request, found by name; shared by requests of one connection with one head.

    Args:
        pairs: Names in lower case, and values.

    Attributes:
        admitted_by: Settings by which a request with this head was admitted, and by nothing else.
        is_plain: Whether they say nothing of tasks or sessions; None until somebody looked.
    """

    __slots__ = ("_ambiguous", "_values", "admitted_by", "is_plain")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self.admitted_by: object = None
        self.is_plain: bool | None = None
        self._values: dict[bytes, bytes] = dict(pairs)
        self._ambiguous: frozenset[bytes] = frozenset()
        if len(self._values) == len(pairs):
            return
        self._values.clear()
        for name, value in pairs:
            before = self._values.setdefault(name, value)
            if before is not value and before != value:
                self._ambiguous |= {name}

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def __iter__(self) -> Iterable[bytes]:
        return iter(self._values)

    def get(self, name: bytes) -> str | None:
        """What is the value of a header?

        Args:
            name: In lower case.

        Returns:
            The value, None where the header is missing.

        Raises:
            RequestError: The header comes twice with different values.
        """
        value = self._values.get(name)
        if value is None:
            return None
        if name in self._ambiguous:
            told = name.decode("latin-1")
            msg = f"header {told} was sent more than once with different values; send one"
            raise RequestError(msg, param=told)
        return value.decode("latin-1").strip()

    def has_any(self, names: frozenset[bytes]) -> bool:
        """Was one of these headers sent?"""
        return not names.isdisjoint(self._values)

    def first(self, name: bytes) -> str:
        """The first value of a header, for those that are hints; empty where it is missing."""
        return self._values.get(name, b"").decode("latin-1").strip()


class Cancellable(Protocol):
    """A task, or what stands in for one."""

    def cancel(self, msg: str = "") -> object:
        """Stop the work."""
        ...


class Connection(Protocol):
    """What an exchange asks of the connection that it is on."""

    def write(self, data: bytes) -> None:
        """Send bytes."""
        ...

    def answered(self, *, keep: bool) -> None:
        """The response is complete; the next request may come, or the connection ends."""
        ...

    async def drain(self) -> None:
        """Wait while the client reads too slowly."""
        ...

    def run(self, exchange: "Exchange", work: Coroutine[Any, Any, None]) -> None:
        """Let a task answer a request."""
        ...

    def holds(self, quick: Any, *, on: bool, later: bool = False) -> None:  # noqa: ANN401 - uvicorn expects tasks
        """A request is answered without a task, from now on or no longer."""
        ...


class Exchange:
    """One request to the data plane and its response.

    uvicorn's protocol keeps it where it keeps its own request cycles, so it has the few names
    that are asked for there: `response_complete`, `disconnected`, `keep_alive`, `message_event`.

    Attributes:
        method: HTTP method.
        path: Path of the URL, without the query.
        body: The request body, once it is whole.
        status: Status that was sent, 0 before.
        finished: Whether the response is complete.
        left: Whether the client left before that.
        timed_out: Whether the answer was given up because it took too long.
        refusal: Why the request will be refused, known before its body.
        task: What answers it.
        parsed: What it asks, once that was read.
        flow: Holds the upstream back while the client reads too slowly.
        key: What its key allows; None without a minted key.
        step_key: Task and number of the step that the request became, for the access log.
        pool: Where the step was placed, for the access log.
        started_s: When its head was whole, on the loop's clock.
    """

    # Of the class until they are set: most of them never are.
    body = b""
    size_bytes = 0
    status = 0
    finished = False
    left = False
    timed_out = False
    disconnected = False
    refusal: RequestError | None = None
    task: Cancellable | None = None
    parsed: Generation | None = None
    flow: ReadFlow | None = None
    key: KeyUse | None = None
    step_key: tuple[str, int] | None = None
    pool = ""
    started_s = 0.0

    def __init__(
        self,
        connection: Connection,
        request_line: tuple[str, str, str],
        headers: RequestHeaders,
        *,
        keep_alive: bool,
    ) -> None:
        self.method, self.path, version = request_line
        self.headers = headers
        self.keep_alive = keep_alive
        self._connection = connection
        self._chunked = version != "1.0"
        self._parts: list[bytes] = []

    # ------------------------------------------------------- request

    def header(self, name: bytes) -> str | None:
        """The value of a request header; see `RequestHeaders.get`."""
        return self.headers.get(name)

    def add_body(self, part: bytes) -> None:
        """The next bytes of the body are here."""
        self._parts.append(part)

    def body_is_whole(self) -> None:
        """The body is complete."""
        parts = self._parts
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []

    def refuse(self, error: RequestError) -> None:
        """It will be refused when it is whole."""
        # The frames that it went through hold this one.
        self.refusal = error.with_traceback(None)

    # ------------------------------------------------ uvicorn's cycle

    @property
    def response_complete(self) -> bool:
        """Whether the response is complete."""
        return self.finished

    @property
    def message_event(self) -> "Exchange":
        """Something with a `set`, by which uvicorn tells of a client that left."""
        return self

    def set(self) -> None:
        """The connection has ended: whatever works on the answer ends with it."""
        if not self.finished:
            self.left = True
            self.stop()

    def answer_by(self, quick: Cancellable) -> None:
        """Something else than a task answers it."""
        self.task = quick
        self._connection.holds(quick, on=True)

    def answered_by(self, quick: Cancellable, *, later: bool = False) -> None:
        """And is done with it; `later` while all that answers may be gone through."""
        # Otherwise each holds the other, until the garbage collector comes for both.
        self.task = None
        self._connection.holds(quick, on=False, later=later)

    def go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """A task answers it from now on."""
        self._connection.run(self, work)

    def stop(self) -> None:
        """Cancel the work."""
        if self.task is not None:
            self.task.cancel()

    def time_out(self) -> None:
        """The answer takes too long."""
        self.timed_out = True
        self.stop()

    # ------------------------------------------------------ response

    def respond(self, status: int, body: bytes, lines: bytes = _JSON_LINE) -> None:
        """Send a whole response.

        Args:
            status: HTTP status.
            body: The body.
            lines: Header lines, each with its end.
        """
        self.status = status
        self.finished = True
        head = _STATUS_LINES[status] + lines
        if not self.keep_alive or b"connection: close\r\n" in lines:
            self.keep_alive = False
            if b"connection: close\r\n" not in lines:
                head += b"connection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        if self.method == "HEAD":
            body = b""
        self._connection.write(b"".join((head, length, body)))
        self._connection.answered(keep=self.keep_alive)

    def begin_stream(self, lines: bytes, first: bytes = b"") -> None:
        """Start a response of server-sent events, with its first bytes in the same packet.

        Args:
            lines: Further header lines.
            first: Events.
        """
        self.status = 200
        end = b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
        if not self._chunked or not self.keep_alive:
            self.keep_alive = False
            end = b"connection: close\r\n" + end
        self._connection.write(b"".join((_STREAM_HEAD, lines, end, self._framed(first))))

    def write(self, data: bytes) -> None:
        """Send a part of a streamed response."""
        if not self.left:
            self._connection.write(self._framed(data))

    async def drain(self) -> None:
        """Wait while the client reads too slowly."""
        await self._connection.drain()

    def end(self, data: bytes) -> None:
        """Send the last part of a streamed response."""
        self.finished = True
        if self.left:
            return
        last = b"0\r\n\r\n" if self._chunked else b""
        self._connection.write(self._framed(data) + last)
        self._connection.answered(keep=self.keep_alive)

    def _framed(self, data: bytes) -> bytes:
        if not self._chunked or not data:
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)


class AsgiExchange:
    """One request to the control plane and its response.

    Attributes:
        method: HTTP method.
        path: Path of the URL, percent signs decoded.
        status: Status that was sent, 0 before.
        finished: Whether the response is complete, or its last part is being sent.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.status = 0
        self.finished = False
        self._headers = RequestHeaders(scope["headers"])
        self._send = send

    def header(self, name: bytes) -> str | None:
        """The value of a request header; see `RequestHeaders.get`."""
        return self._headers.get(name)

    async def respond(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole response of JSON.

        Args:
            status: HTTP status.
            body: The body.
            headers: Further headers, names in lower case.
        """
        sent = [
            *headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        self.status = status
        self.finished = True
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def json_lines(headers: Headers) -> bytes:
    """Header lines of a JSON response.

    Args:
        headers: Further headers, names in lower case.

    Returns:
        The lines, each with its end.
    """
    more = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return _JSON_LINE + more
