"""The mock upstream: an OpenAI-compatible server that computes nothing.

asyncio protocols on uvloop, HTTP parsed by httptools: about 15 us of CPU per answer, so that it is
never the slowest part. Run by run.py as `python upstream.py PORT EVENTS GAP_S`, by overload.py with
`PLACES SERVICE_S` in addition: a whole answer then takes SERVICE_S, PLACES at once, and others wait
in order of arrival, as in an engine; one whose client leaves gives its place back.

A request that asks for a stream gets EVENTS pieces, one every GAP_S seconds, a usage event where
it asked for one, and `[DONE]`; any other gets one whole answer at once. `GET /v1/models` and
`GET /health` answer what routers want to see before they send anything.
"""

import asyncio
import json
import sys
from collections import deque

import httptools
import uvloop

MODEL = "mock"
_USAGE = {"prompt_tokens": 12, "completion_tokens": 64, "total_tokens": 76}


def response(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind
    return head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(choices: object, usage: object = None) -> bytes:
    told = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": choices,
        "usage": usage,
    }
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def piece(delta: object, reason: str | None = None) -> bytes:
    return _chunk(_event([{"index": 0, "delta": delta, "finish_reason": reason}]))


ANSWER = response(
    json.dumps(
        {
            "id": "chatcmpl-mock",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "An answer of a few words."},
                    "finish_reason": "stop",
                }
            ],
            "usage": _USAGE,
        }
    ).encode()
)
MODELS = response(json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode())
HEALTH = response(b"{}")
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
PIECE = piece({"content": "word "})
LAST = piece({}, "stop")
USAGE = _chunk(_event([], _USAGE))
END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Places:
    """So many answers at once, each so long; the others wait in order of arrival."""

    def __init__(self, count: int, service_s: float) -> None:
        self._free = count
        self._service_s = service_s
        self._waiting: deque[Upstream] = deque()
        self._running: dict[Upstream, asyncio.TimerHandle] = {}

    def take(self, connection: "Upstream") -> None:
        self._waiting.append(connection)
        self._let_in()

    def leave(self, connection: "Upstream") -> None:
        timer = self._running.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._free += 1
            self._let_in()
        elif connection in self._waiting:
            self._waiting.remove(connection)

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while self._free and self._waiting:
            self._free -= 1
            one = self._waiting.popleft()
            self._running[one] = loop.call_later(self._service_s, self._answer, one)

    def _answer(self, connection: "Upstream") -> None:
        del self._running[connection]
        self._free += 1
        connection.answer()
        self._let_in()


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        events: int,
        gap_s: float,
        places: Places | None = None,
    ) -> None:
        self._loop = loop
        self._places = places
        self._events = events
        self._gap_s = gap_s
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._places is not None:
            self._places.leave(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Routers ask whether this is HTTP/2; it is not.
            if self._transport is not None:
                self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body, self._body = b"".join(self._body), []
        transport = self._transport
        if transport is None:
            return
        if self._url.endswith(b"/models"):
            transport.write(MODELS)
        elif not body:
            transport.write(HEALTH)
        elif b'"stream":true' in body or b'"stream": true' in body:
            usage = b'"include_usage":true' in body or b'"include_usage": true' in body
            transport.write(STREAM_HEAD)
            self._next(self._events, usage, self._loop.time())
        elif self._places is not None:
            self._places.take(self)
        else:
            transport.write(ANSWER)

    def answer(self) -> None:
        if self._transport is not None:
            self._transport.write(ANSWER)

    def _next(self, left: int, usage: bool, due_s: float) -> None:
        transport = self._transport
        if transport is None:
            return
        if left == 0:
            transport.write(LAST + (USAGE if usage else b"") + END)
            return
        transport.write(PIECE)
        due_s += self._gap_s
        self._loop.call_at(due_s, self._next, left - 1, usage, due_s)


async def main(port: int, events: int, gap_s: float, places: Places | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Upstream(loop, events, gap_s, places), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    bounded = Places(int(sys.argv[4]), float(sys.argv[5])) if len(sys.argv) > 4 else None
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), bounded))
