"""Does goodput hold when far more is asked than the upstream can do?

Run as `python benchmarks/gateway/overload.py [--seconds S] [--peers DIR]`. The upstream
(upstream.py) answers PLACES requests at once, each in SERVICE_S, and queues the others, as an
engine does. Requests come at fixed times, at 1, 2, 5 and 10 times its capacity; each has a
deadline of DEADLINE_S, and its client leaves then. Goodput is what was answered in time, per
second; what is sent in the first second is not counted. Steelyard runs as `steelyard up` with a
key and the log on disk, once where steps that would be late are refused (`Steelyard-On-Miss:
refuse`) and once where they are not (`run_late`, the default). vllm-router, if it is installed
under DIR as run.py says, knows no deadline.

At last a burst of two seconds at five times the capacity: each client that was refused waits as
long as `Retry-After` said, and tries once more. There is no chance in it, so there is no seed.
"""

import argparse
import asyncio
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
import uvloop

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from gateways import KEY, Gateway, peers, resident_mb, steelyard  # noqa: E402

PLACES = 16
SERVICE_S = 0.2
DEADLINE_S = 1.0
CAPACITY_PER_S = PLACES / SERVICE_S
FACTORS = (1, 2, 5, 10)
_RAMP_S = 1.0
_POOL = """
[gateway]
port = {port}
api_keys_file = "keys"
{more}
[store]
path = "log.db"
[pools.lab]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{upstream}/v1"]
models = ["mock"]
usd_per_hour = 1.0
curve = {{ concurrency_cap = {places}, ttft_floor_s = 0.05, itl_base_s = 0.003, itl_slope_s = 0.0 }}
"""


class Asked:
    """One request: when it was due, how long it may take, and what came of it."""

    def __init__(self, due_s: float, allowed_s: float = DEADLINE_S) -> None:
        self.due_s = due_s
        self.allowed_s = allowed_s
        self.status = 0
        self.retry_after_s: float | None = None
        self.took_s = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """It is answered, or given up."""
        self.took_s = time.monotonic() - self.due_s
        if not self.done.done():
            self.done.set_result(None)

    @property
    def good(self) -> bool:
        """Was it answered in time?"""
        return self.status == 200 and self.took_s <= self.allowed_s


class Client(asyncio.Protocol):
    """One connection; its client leaves at the deadline."""

    def __init__(self, idle: "deque[Client]") -> None:
        self._idle = idle
        self._asked: Asked | None = None
        self._parser: Any = None
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry_after_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of `asyncio.Protocol`."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self._transport = None
        self._end()

    def send(self, asked: Asked, data: bytes) -> bool:
        """Send a request; False where the connection has ended."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._asked = asked
        self._retry_after_s = None
        self._parser = httptools.HttpResponseParser(self)
        left_s = max(0.0, asked.due_s + asked.allowed_s - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left_s, self.leave)
        self._transport.write(data)
        return True

    def leave(self) -> None:
        """The deadline has passed."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As of httptools."""
        if name.lower() == b"retry-after":
            self._retry_after_s = float(value)

    def on_message_complete(self) -> None:
        """As of httptools."""
        if self._asked is not None:
            self._asked.status = self._parser.get_status_code()
            self._asked.retry_after_s = self._retry_after_s
        self._parser = None
        self._end()
        self._idle.append(self)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asked is not None:
            self._asked.end()
            self._asked = None


class Load:
    """Sends requests at fixed times to one gateway."""

    def __init__(self, port: int, key: str, on_miss: str) -> None:
        self._port = port
        self._key = key
        self._on_miss = on_miss
        self._idle: deque[Client] = deque()
        self._number = 0

    def _request(self, more: tuple[str, ...]) -> bytes:
        self._number += 1
        # Another prompt each time, so that no cache plays a part.
        messages = [{"role": "user", "content": f"Question {self._number}"}]
        body = {"model": "mock", "max_tokens": 64, "messages": messages}
        data = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            *(more or (f"Steelyard-Deadline: {DEADLINE_S:g}",)),
        ]
        if self._key:
            lines.append(f"Authorization: Bearer {self._key}")
        if self._on_miss:
            lines.append(f"Steelyard-On-Miss: {self._on_miss}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + data

    async def ask(
        self, due_s: float, allowed_s: float = DEADLINE_S, more: tuple[str, ...] = ()
    ) -> Asked:
        """Send one request, with these headers more, and wait for what comes of it."""
        asked, data = Asked(due_s, allowed_s), self._request(more)
        while self._idle:
            if self._idle.pop().send(asked, data):
                await asked.done
                return asked
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(
                lambda: Client(self._idle), "127.0.0.1", self._port
            )
        except OSError:
            asked.end()
            return asked
        if not client.send(asked, data):
            asked.end()
        await asked.done
        return asked

    async def at_rate(self, per_s: float, seconds: float) -> list[Asked]:
        """Send requests at fixed times."""
        started_s, asking = time.monotonic(), []
        for number in range(int(per_s * seconds)):
            due_s = started_s + number / per_s
            if (wait_s := due_s - time.monotonic()) > 0.0:
                await asyncio.sleep(wait_s)
            asking.append(asyncio.ensure_future(self.ask(due_s)))
        return await asyncio.gather(*asking)


def row(asked: list[Asked], started_s: float, seconds: float) -> dict[str, Any]:
    """What came of the requests that were sent after the ramp."""
    counted = [one for one in asked if one.due_s - started_s >= _RAMP_S]
    statuses = Counter(one.status for one in counted)
    refused = [one for one in counted if one.status in {429, 503}]
    return {
        "goodput_per_s": sum(one.good for one in counted) / (seconds - _RAMP_S),
        "sent": len(counted),
        "refused": len(refused),
        "told_when": sum(one.retry_after_s is not None for one in refused),
        "refused_after_ms": 1e3
        * sorted([one.took_s for one in refused] or [0.0])[len(refused) // 2],
        "left": statuses[0],
        "other": {str(s): n for s, n in statuses.items() if s not in {0, 200, 429, 503}},
    }


async def burst(load: Load) -> dict[str, Any]:
    """Who is refused comes back when it was told to; how many are answered in time then?"""

    async def come_back(one: Asked) -> Asked:
        await asyncio.sleep(
            max(0.0, one.due_s + one.took_s + (one.retry_after_s or 0.0) - time.monotonic())
        )
        return await load.ask(time.monotonic())

    first = await load.at_rate(5 * CAPACITY_PER_S, 2.0)
    told = [one for one in first if one.retry_after_s is not None]
    again = await asyncio.gather(*(come_back(one) for one in told))
    waits_s = sorted(one.retry_after_s or 0.0 for one in told) or [0.0]
    return {
        "sent": len(first),
        "good_at_first": sum(one.good for one in first),
        "told_when": len(told),
        "wait_s_median": waits_s[len(waits_s) // 2],
        "wait_s_most": waits_s[-1],
        "good_after_the_wait": sum(one.good for one in again),
    }


async def one_of_them(load: Load) -> dict[str, Any]:
    """As `burst`, but one refused client in fifty comes back, and the others go elsewhere."""
    first = await load.at_rate(5 * CAPACITY_PER_S, 2.0)
    told = [one for one in first if one.retry_after_s is not None][::50]
    again: list[Asked] = []
    for one in told:
        wait_s = one.due_s + one.took_s + (one.retry_after_s or 0.0) - time.monotonic()
        await asyncio.sleep(max(0.0, wait_s))
        again.append(await load.ask(time.monotonic()))
    return {"told_when": len(told), "good_after_the_wait": sum(one.good for one in again)}


async def measure(gateway: Gateway, port: int, on_miss: str, pid: int, seconds: float) -> None:
    """Measure one gateway and print its rows."""
    load, best = Load(port, gateway.key, on_miss), 0.0
    name = f"{gateway.name} {on_miss}".strip()
    await load.at_rate(CAPACITY_PER_S / 2, 2.0)
    for factor in FACTORS:
        started_s = time.monotonic()
        told = row(await load.at_rate(factor * CAPACITY_PER_S, seconds), started_s, seconds)
        best = max(best, told["goodput_per_s"])
        told |= {"of_peak_frac": told["goodput_per_s"] / best if best else 0.0}
        told |= {"resident_mb": resident_mb(pid)}
        print(f"{name} at {factor}x: {json.dumps(_short(told))}", flush=True)
        await asyncio.sleep(1.0)
    if gateway.key:
        print(f"{name} burst, all come back: {json.dumps(_short(await burst(load)))}", flush=True)
        await asyncio.sleep(2.0)
        print(f"{name} burst, 1 in 50 back: {json.dumps(await one_of_them(load))}", flush=True)


def _short(told: dict[str, Any]) -> dict[str, Any]:
    return {key: round(one, 3) if isinstance(one, float) else one for key, one in told.items()}


@contextmanager
def upstream(port: int) -> Iterator[None]:
    """The mock upstream in a process of its own."""
    command = [sys.executable, str(HERE / "upstream.py"), str(port), "64", "0.01"]
    process = subprocess.Popen([*command, str(PLACES), str(SERVICE_S)])  # noqa: S603
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


def bounded(more: str = "") -> Gateway:
    """Steelyard with one pool that knows how many places its upstream has, and more settings."""
    usual = steelyard()

    def command(folder: Path, port: int, to: int) -> list[str]:
        line = usual.command(folder, port, to)
        text = _POOL.format(port=port, upstream=to, places=PLACES, more=more)
        (folder / "steelyard.toml").write_text(text)
        return line

    return Gateway("steelyard", command, KEY)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--port", type=int, default=18300)
    given = parser.parse_args()
    python, today = sys.version.split()[0], dt.datetime.now(tz=dt.UTC)
    print(f"{today:%Y-%m-%d} {platform.machine()}, Python {python}")
    told = f"capacity {CAPACITY_PER_S:g}/s: {PLACES} places of {SERVICE_S:g} s"
    print(f"{told}; deadline {DEADLINE_S:g} s")
    found, _ = peers(given.peers)
    runs = [(bounded(), "refuse"), (bounded(), "run_late")]
    runs += [(one, "") for one in found if one.name == "vllm-router"]
    for number, (gateway, on_miss) in enumerate(runs):
        port = given.port + 10 * number
        with (
            tempfile.TemporaryDirectory() as folder,
            upstream(port + 1),
            gateway.running(Path(folder) / "gateway", port, port + 1, None) as (pid, _),
        ):
            uvloop.run(measure(gateway, port, on_miss, pid, given.seconds))


if __name__ == "__main__":
    main()
