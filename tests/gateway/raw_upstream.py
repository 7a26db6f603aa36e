"""An upstream on a real socket that sends exactly the bytes it is told to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE: dict[str, Any] = {
    "id": "up-1",
    "vendor": {"x": 1.10},
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def piece(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return (
        b"data: "
        + json.dumps({"id": "up-1", "vendor": [1], "choices": [choice]}).encode()
        + b"\n\n"
    )


def usage_event() -> bytes:
    told: dict[str, Any] = {"id": "up-1", "choices": [], "usage": WHOLE["usage"]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Call:
    """One request that the upstream got."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body = body
        self.writer = writer
        self.left = asyncio.Event()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Call], Awaitable[None]]


class RawUpstream:
    """Answers every request by a script; remembers them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.connections = 0
        self.came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                call = Call(head, await reader.readexactly(length), writer)
                if head.startswith(b"GET "):
                    await call.send(whole(b'{"data":[{"id":"m"}]}'))
                    continue
                self.calls.append(call)
                self.came.set()
                watching = asyncio.create_task(_watch(reader, call))
                try:
                    await self.script(call)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()


async def _watch(reader: asyncio.StreamReader, call: Call) -> None:
    # The gateway pipelines nothing: what comes before the answer is whole is the end.
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
    call.left.set()


@asynccontextmanager
async def raw_upstream(script: Script) -> AsyncGenerator[tuple[RawUpstream, str]]:
    upstream = RawUpstream(script)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield upstream, f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()
        for call in upstream.calls:
            call.writer.close()
