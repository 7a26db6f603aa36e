"""Calls of the HTTP server that xllamacpp runs inside the engine child: blocking and streamed.

The library's own in-process call blocks a thread per answer and names no tokens; its server does,
and a closed connection cancels. It listens on the loopback address, and its key never leaves the
process.
"""

import http.client
import socket
from typing import Any

import httptools
import msgspec

from steelyard.errors import PoolRejectedError

_READ_BYTES = 65536
_CALL_TIMEOUT_S = 30.0


class Progress(msgspec.Struct, frozen=True):
    """How far the prompt is."""

    cache: int = 0
    processed: int = 0


class Timings(msgspec.Struct, frozen=True):
    """What the server counted."""

    cache_n: int = 0


class Probability(msgspec.Struct, frozen=True):
    """Of a chosen token."""

    logprob: float = 0.0


class Failure(msgspec.Struct, frozen=True):
    """Why the server does not answer."""

    message: str = ""


class Event(msgspec.Struct, frozen=True):
    """One event of a streamed answer, by the names of llama.cpp's `/completion`."""

    content: str = ""
    tokens: tuple[int, ...] = ()
    tokens_predicted: int = 0
    stop: bool = False
    stop_type: str = ""
    completion_probabilities: tuple[Probability, ...] = ()
    prompt_progress: Progress | None = None
    timings: Timings | None = None
    error: Failure | None = None


class Address(msgspec.Struct, frozen=True):
    """Where the server listens, and the key that it wants."""

    port: int
    key: str

    @property
    def host(self) -> str:
        """The loopback address."""
        return "127.0.0.1"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call and wait for the answer.

        Raises:
            PoolRejectedError: The server takes the body for wrong.
            RuntimeError: It does not answer, or not as it should.
        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_CALL_TIMEOUT_S)
        try:
            payload = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, payload, self._headers())
            answer = connection.getresponse()
            status, data = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeError(f"llama.cpp's server does not answer {path}: {error}") from error
        finally:
            connection.close()
        if status == http.HTTPStatus.BAD_REQUEST:
            raise PoolRejectedError(f"The engine cannot read the request: {_message(data)}")
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"llama.cpp's server answers {path} with {status}: {_message(data)}")
        return msgspec.json.decode(data, type=dict[str, Any])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}


class Exchange:
    """One call whose answer is read as it comes; closing it cancels.

    Args:
        address: The server.
        path: What is called.
        body: JSON.
    """

    def __init__(self, address: Address, path: str, body: dict[str, Any]) -> None:
        payload = msgspec.json.encode(body)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {address.key}\r\nContent-Length: {len(payload)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.socket = socket.create_connection((address.host, address.port), _CALL_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(head.encode() + payload)
        self.socket.setblocking(False)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._received = bytearray()
        self._status = 0
        self.done = False

    @property
    def failure(self) -> str:
        """Why did it fail? Empty when it did not."""
        if not self.done or self._status == http.HTTPStatus.OK:
            return ""
        return _message(bytes(self._received)) if self._status else "the connection was closed"

    def receive(self) -> list[Event]:
        """Which events have come?"""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.done = True
            return []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.done, self._status = True, 0
        return self._events()

    def close(self) -> None:
        """Cancel what is not done."""
        self.socket.close()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._status = int(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._received += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.done = True

    def _events(self) -> list[Event]:
        if self._status != http.HTTPStatus.OK:
            return []
        *whole, rest = bytes(self._received).split(b"\n\n")
        self._received = bytearray(rest)
        return [
            msgspec.json.decode(event.partition(b":")[2], type=Event)
            for event in whole
            if event.startswith((b"data: {", b"error: {"))
        ]


def _message(data: bytes) -> str:
    try:
        said = msgspec.json.decode(data, type=Event).error
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = None
    return said.message if said is not None else data[:200].decode("utf-8", "replace")
