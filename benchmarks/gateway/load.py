"""The load generator: asyncio protocols on uvloop, answers parsed by httptools.

Run by run.py as `python load.py JSON`, with `mode` one of `closed` (every connection sends again
when it is answered), `open` (requests at fixed times, latency counted from when they were due) and
`streams` (so many streams at once, again and again). Prints one JSON object.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import deque
from typing import Any

import httptools
import uvloop


class Client(asyncio.Protocol):
    """One connection; `done` is called with (status, events, first byte, last byte)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Any) -> None:
        self._loop = loop
        self._done = done
        self._parser: Any = None
        self._transport: Any = None
        self._events = 0
        self._first_s = 0.0
        self.due_s = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._parser is not None:
            self._parser = None
            self._done(self, 0, 0, 0.0)

    def send(self, request: bytes, due_s: float) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._events = 0
        self._first_s = 0.0
        self.due_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self._first_s:
            self._first_s = time.monotonic()
        self._events += body.count(b"data: ")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = None
        # The next request must not be sent from inside the parser.
        self._loop.call_soon(self._done, self, status, self._events, self._first_s)

    def close(self) -> None:
        self._parser = None
        if self._transport is not None:
            self._transport.close()


def request(target: dict[str, Any], stream: bool) -> bytes:
    body: dict[str, Any] = {
        "model": target["model"],
        "messages": [{"role": "user", "content": target["prompt"]}],
        "max_tokens": 64,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    key = f"Authorization: Bearer {target['key']}\r\n" if target["key"] else ""
    more = "".join(f"{name}: {value}\r\n" for name, value in target.get("headers", {}).items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{target['port']}\r\n{key}{more}"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Run:
    """One measurement against one port."""

    def __init__(self, target: dict[str, Any]) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._sent = request(target, target["mode"] == "streams")
        self._idle: deque[Client] = deque()
        self.latencies_s: list[float] = []
        self.firsts_s: list[float] = []
        self.failed = 0
        self.events = 0
        self._ends_s = 0.0
        self._in_flight = 0
        self._all_done = asyncio.Event()

    async def connect(self) -> None:
        for _ in range(self._target["connections"]):
            self._idle.append(await self._connection())

    async def _connection(self) -> Client:
        port = self._target["port"]
        _, client = await self._loop.create_connection(
            lambda: Client(self._loop, self._answered), "127.0.0.1", port
        )
        return client

    def _answered(self, client: Client, status: int, events: int, first_s: float) -> None:
        now_s = time.monotonic()
        self._in_flight -= 1
        if status == 200:
            self.latencies_s.append(now_s - client.due_s)
            self.firsts_s.append(first_s - client.due_s)
            self.events += events
        else:
            self.failed += 1
        self._idle.append(client)
        if now_s < self._ends_s and self._target["mode"] != "open":
            self._again()
        elif self._in_flight == 0 and now_s >= self._ends_s:
            self._all_done.set()

    def _again(self, due_s: float = 0.0) -> None:
        client = self._idle.popleft()
        if client.lost:
            self.failed += 1
            self._loop.create_task(self._replace())
            return
        self._in_flight += 1
        client.send(self._sent, due_s or time.monotonic())

    async def _replace(self) -> None:
        self._idle.append(await self._connection())

    async def measure(self) -> dict[str, Any]:
        started_s = time.monotonic()
        self._ends_s = started_s + self._target["seconds"]
        if self._target["mode"] == "open":
            await self._send_at_rate(started_s)
        else:
            for _ in range(len(self._idle)):
                self._again()
        try:
            await asyncio.wait_for(self._all_done.wait(), self._target["seconds"] + 30.0)
        except TimeoutError:
            self.failed += self._in_flight
        took_s = time.monotonic() - started_s
        for client in self._idle:
            client.close()
        return {
            "requests": len(self.latencies_s),
            "failed": self.failed,
            "events": self.events,
            "seconds": took_s,
            "generator_cpu_s": time.process_time(),
            **_quantiles("latency", self.latencies_s),
            **_quantiles("first", self.firsts_s),
        }

    async def _send_at_rate(self, started_s: float) -> None:
        gap_s = 1.0 / self._target["rate"]
        number = 0
        while (due_s := started_s + number * gap_s) < self._ends_s:
            wait_s = due_s - time.monotonic()
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
            if self._idle:
                self._again(due_s)
            else:
                self.failed += 1
            number += 1
        if self._in_flight == 0:
            self._all_done.set()


def _quantiles(name: str, values_s: list[float]) -> dict[str, float]:
    if len(values_s) < 2:
        return {}
    cuts = statistics.quantiles(values_s, n=100)
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}


async def main(target: dict[str, Any]) -> None:
    run = Run(target)
    await run.connect()
    print(json.dumps(await run.measure()))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
