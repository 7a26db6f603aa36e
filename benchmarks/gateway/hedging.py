"""What do second attempts do to the tail of the first token, and what do they cost?

Run as `python benchmarks/gateway/hedging.py [--requests N] [--seed S]`. Two replicas of one
endpoint send their first token after FAST_S, and in one of SLOW_ONE_IN cases after SLOW_S; which
ones is drawn from the seed. Steelyard runs as `steelyard up` with `gateway.hedge_frac` at 0, 0.02
and 0.05; streamed requests of one agent come at fixed times. Printed are the times to the first
byte, how many requests the upstreams got per request, what all attempts cost, and how long after
its end was known a cut attempt was seen to be cut by its upstream. At last clients leave while both
attempts at their step are silent.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from gateways import KEY, Gateway, steelyard  # noqa: E402

FAST_S, SLOW_S, SLOW_ONE_IN = 0.02, 1.0, 50
PER_S = 100.0
LEAVERS = 50
_CONFIG = """
[gateway]
port = {port}
api_keys_file = "keys"
hedge_frac = {frac}
[store]
path = "log.db"
[pools.lab]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{one}/v1", "http://127.0.0.1:{two}/v1"]
models = ["mock"]
usd_per_hour = 1.0
curve = {{ concurrency_cap = 64, ttft_floor_s = 0.02, itl_base_s = 0.003, itl_slope_s = 0.0 }}
"""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ANSWER: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
]
_WHOLE: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


class Upstream:
    """Both replicas: slow by chance, or silent."""

    def __init__(self, seed: int) -> None:
        self._draws = random.Random(seed)  # noqa: S311
        self.silent = False
        self.requests = 0
        self.cut_s: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [
                    line for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
                ]
                body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                if head.startswith(b"GET "):
                    body = b'{"data":[{"id":"mock"}]}'
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                    )
                elif not await self._answer(reader, writer, stream=b'"stream"' in body):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool
    ) -> bool:
        self.requests += 1
        wait_s = SLOW_S if self._draws.randrange(SLOW_ONE_IN) == 0 else FAST_S
        cut = asyncio.ensure_future(reader.read(1))
        done, _ = await asyncio.wait({cut}, timeout=None if self.silent else wait_s)
        if done:
            self.cut_s.append(time.monotonic())
            return False
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        if not stream:
            body = json.dumps(_WHOLE).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return True
        events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in _ANSWER]
        data = b"".join([*events, b"data: [DONE]\n\n"])
        writer.write(_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        return True


class Load:
    """Asks one gateway."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._number = 0

    async def ask(self) -> float:
        """Seconds to the first byte of an answer."""
        self._number += 1
        messages = [{"role": "user", "content": f"Question {self._number}"}]
        body = {"model": "mock", "max_tokens": 8, "stream": True, "messages": messages}
        headers = {"Steelyard-Agent": "bench", "Authorization": f"Bearer {KEY}"}
        started_s = time.monotonic()
        async with self._http.post("/v1/chat/completions", json=body, headers=headers) as response:
            response.raise_for_status()
            await response.content.readany()
            first_s = time.monotonic() - started_s
            await response.read()
        return first_s

    async def at_rate(self, count: int) -> list[float]:
        """The same of many, sent at fixed times."""
        started_s, asking = time.monotonic(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, started_s + number / PER_S - time.monotonic()))
            asking.append(asyncio.ensure_future(self.ask()))
        return await asyncio.gather(*asking)


async def leave(load: Load, upstream: Upstream) -> list[float]:
    """Seconds from a client's leaving to the end of each of its two attempts upstream."""
    upstream.silent, took_s = True, []
    for _ in range(LEAVERS):
        before, seen = upstream.requests, len(upstream.cut_s)
        asking = asyncio.ensure_future(load.ask())
        limit_s = time.monotonic() + 1.0
        while upstream.requests < before + 2 and time.monotonic() < limit_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        count = upstream.requests - before
        asking.cancel()
        left_s = time.monotonic()
        while len(upstream.cut_s) < seen + count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        took_s += [one - left_s for one in upstream.cut_s[seen:]]
    return took_s


async def cost_usd(http: aiohttp.ClientSession) -> float:
    """What all attempts cost."""
    async with http.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}) as response:
        lines = (await response.text()).splitlines()
    costs = [line for line in lines if line.startswith("steelyard_cost_usd_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in costs)


async def measure(frac: float, port: int, count: int, seed: int) -> None:
    """Measure one share and print its row."""
    upstream = Upstream(seed)
    servers = [await asyncio.start_server(upstream.serve, "127.0.0.1", port + n) for n in (1, 2)]
    usual = steelyard()

    def command(folder: Path, at: int, to: int) -> list[str]:
        line = usual.command(folder, at, to)
        text = _CONFIG.format(port=at, one=port + 1, two=port + 2, frac=frac)
        (folder / "steelyard.toml").write_text(text)
        return line

    gateway = Gateway("steelyard", command, KEY)
    with tempfile.TemporaryDirectory() as folder:
        running = gateway.running(Path(folder) / "gateway", port, port + 1, None)
        await asyncio.to_thread(running.__enter__)
        try:
            connector = aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector)
            async with session as http:
                load = Load(http)
                # The tail is learned from these.
                await load.at_rate(200)
                before, cost_before_usd = upstream.requests, await cost_usd(http)
                first_s = sorted(await load.at_rate(count))
                told = {f"p{p}_ms": 1e3 * first_s[int(p * count / 100)] for p in (50, 95, 98, 99)}
                told["asked_per_request"] = (upstream.requests - before) / count
                spent_usd = await cost_usd(http) - cost_before_usd
                told["cost_usd_per_1000"] = 1e3 * spent_usd / count
                rounded = {key: float(f"{one:.4g}") for key, one in told.items()}
                print(f"hedge_frac {frac:g}: {json.dumps(rounded)}", flush=True)
                if frac >= 1.0:
                    cut_ms = sorted(1e3 * one for one in await leave(load, upstream))
                    half = cut_ms[len(cut_ms) // 2]
                    over = sum(one > 50.0 for one in cut_ms)
                    told_ms = f"median {half:.1f} ms, longest {cut_ms[-1]:.1f} ms, {over} over 50"
                    print(f"clients left: {len(cut_ms)} attempts cut, {told_ms}", flush=True)
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)
            for server in servers:
                server.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000, help="of each share")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=18700)
    parser.add_argument("--runs", type=int, default=3, help="with the same seed")
    given = parser.parse_args()
    python, today = sys.version.split()[0], dt.datetime.now(tz=dt.UTC)
    print(f"{today:%Y-%m-%d} {platform.machine()}, Python {python}, seed {given.seed}")
    slow = f"1 in {SLOW_ONE_IN} after {SLOW_S:g} s"
    print(f"{PER_S:g} requests/s, first token after {FAST_S:g} s, {slow}")
    for run in range(given.runs):
        print(f"run {run}, load {os.getloadavg()[0]:.1f}", flush=True)
        for number, frac in enumerate((0.0, 0.02, 0.05, 1.0)):
            asyncio.run(measure(frac, given.port + 10 * number, given.requests, given.seed))


if __name__ == "__main__":
    main()
