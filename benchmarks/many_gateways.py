"""What is lost where several gateways use the same replicas? Against one, and against not sharing.

Run as `python benchmarks/many_gateways.py [--seconds S] [--rounds N]`. REPLICAS mock replicas run
CAP answers at once, each for a drawn time (log-normal, mean SERVICE_S), and queue the others, as
engines do. The same requests, at drawn times (Poisson, seed 1), come through one, two and four
gateways (`steelyard up --store postgresql://...`, a server of the benchmark's own without fsync),
each request to a drawn gateway; once where gateways share their loads, once where they do not
(`store.share_load`). It prints what the replicas and the clients saw:

- wait: seconds until the whole answer, less the time for which the replica computed it;
- most at once: running and waiting in the fullest replica, whose cap is CAP;
- over the cap: answers that had to wait in a replica;
- goodput: answers within DEADLINE_S, per second;
- CPU of all gateways per request.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "gateway")]

import upstream as mock  # noqa: E402
from gateways import cpu_s  # noqa: E402
from tests.store.postgres_server import postgres_server  # noqa: E402

REPLICAS = 4
CAP = 8
SERVICE_S = 0.2
_SIGMA = 0.6
DEADLINE_S = 1.0
CAPACITY_PER_S = REPLICAS * CAP / SERVICE_S
_CONFIG = """
[gateway]
port = {port}
[store]
url = "{store}"
share_load = {shares}
[pools.lab]
kind = "endpoint"
base_urls = [{urls}]
models = ["mock"]
usd_per_hour = 1.0
curve = {{ concurrency_cap = {cap}, ttft_floor_s = 0.02, itl_base_s = 0.003, itl_slope_s = 0.0 }}
"""
_ANSWER = json.loads(mock.ANSWER.partition(b"\r\n\r\n")[2])
_SERVICE = re.compile(rb"mock-([0-9.]+)")


# ----------------------------------------------------------------- replicas, in a process of theirs


class CountingPlaces(mock.Places):
    """Places that draw their service times and count."""

    def __init__(self, seed: int) -> None:
        super().__init__(CAP, SERVICE_S)
        self._random = random.Random(seed)  # noqa: S311
        self.most = self.late = self.served = 0

    def take(self, connection: mock.Upstream) -> None:
        """As of `mock.Places`."""
        self.served += 1
        self.late += not self._free
        # The mean of a log-normal is exp(mu + sigma^2 / 2).
        mu = math.log(SERVICE_S) - _SIGMA**2 / 2.0
        self._service_s = connection.service_s = self._random.lognormvariate(mu, _SIGMA)
        super().take(connection)
        self.most = max(self.most, len(self._running) + len(self._waiting))

    def _let_in(self) -> None:
        while self._free and self._waiting:
            self._service_s = self._waiting[0].service_s
            self._free -= 1
            one = self._waiting.popleft()
            loop = asyncio.get_running_loop()
            self._running[one] = loop.call_later(one.service_s, self._answer, one)


class Replica(mock.Upstream):
    """One connection to a replica; GET .../counts tells and clears its counts."""

    service_s = 0.0

    def on_message_complete(self) -> None:
        """As of httptools."""
        if not self._url.endswith(b"/counts"):
            super().on_message_complete()
            return
        places = self._places
        told = {"most": places.most, "late": places.late, "served": places.served}
        places.most = places.late = places.served = 0
        self._transport.write(mock.response(json.dumps(told).encode()))

    def answer(self) -> None:
        """Tell for how long it was computed."""
        if self._transport is not None:
            told = {**_ANSWER, "id": f"mock-{self.service_s:.6f}"}
            self._transport.write(mock.response(json.dumps(told).encode()))


async def replicas(ports: list[int]) -> None:
    """Be all replicas until killed."""
    loop = asyncio.get_running_loop()
    for port in ports:
        places = CountingPlaces(port)
        await loop.create_server(
            lambda places=places: Replica(loop, 1, 0.0, places), "127.0.0.1", port, backlog=2048
        )
    print("ready", flush=True)
    await asyncio.Event().wait()


# ----------------------------------------------------------------------------------------- gateways


@contextmanager
def gateways(
    folder: Path, count: int, store: str, urls: list[str], *, shares: bool
) -> Iterator[list[tuple[str, int]]]:
    """So many gateways: (address, process id) of each."""
    with ExitStack() as stack:
        found: list[tuple[str, Any]] = []
        for number in range(count):
            port = free_port()
            place = folder / f"gateway{number}"
            place.mkdir(parents=True)
            quoted = ", ".join(f'"{url}"' for url in urls)
            text = _CONFIG.format(
                port=port, store=store, shares=str(shares).lower(), urls=quoted, cap=CAP
            )
            (place / "steelyard.toml").write_text(text)
            config = str(place / "steelyard.toml")
            output = stack.enter_context((place / "output.txt").open("wb"))
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "steelyard", "up", "--config", config],
                stdout=output,
                stderr=output,
            )
            stack.callback(_stop, process)
            found.append((f"http://127.0.0.1:{port}", process))
        for address, process in found:
            _wait_ready(address, process)
        yield [(address, process.pid) for address, process in found]


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait(30)


def _wait_ready(address: str, process: "subprocess.Popen[bytes]") -> None:
    import urllib.request  # noqa: PLC0415

    gives_up_s = time.monotonic() + 60.0
    while time.monotonic() < gives_up_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5.0):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the gateway at {address} did not start")


def free_port() -> int:
    """A port that nobody uses now."""
    import socket  # noqa: PLC0415

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# --------------------------------------------------------------------------------------------- load


async def load(addresses: list[str], per_s: float, seconds: float) -> list[tuple[float, float]]:
    """Send requests at drawn times; (latency, service time) of each, infinite at failure."""
    drawn = random.Random(1)  # noqa: S311
    body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def ask(address: str, due_s: float) -> tuple[float, float]:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            url, kind = f"{address}/v1/chat/completions", {"content-type": "application/json"}
            async with http.post(url, data=body, headers=kind) as answer:
                told = await answer.read()
                took_s = time.monotonic() - due_s
                found = _SERVICE.search(told)
                if answer.status != 200 or found is None:
                    return math.inf, 0.0
                return took_s, float(found[1])

        due_s, asked = time.monotonic() + 0.2, []
        end_s = due_s + seconds
        while due_s < end_s:
            asked.append(asyncio.ensure_future(ask(drawn.choice(addresses), due_s)))
            due_s += drawn.expovariate(per_s)
        return await asyncio.gather(*asked)


async def counts(urls: list[str]) -> dict[str, int]:
    """What have the replicas counted? `most` of the fullest, sums of the others; cleared then."""
    found: dict[str, int] = {"most": 0, "late": 0, "served": 0}
    async with aiohttp.ClientSession() as http:
        for url in urls:
            async with http.get(f"{url}/counts") as answer:
                told = await answer.json()
            found["most"] = max(found["most"], told["most"])
            found["late"] += told["late"]
            found["served"] += told["served"]
    return found


async def measure(
    front: list[tuple[str, int]], urls: list[str], per_s: float, seconds: float
) -> dict[str, float]:
    """One row of the table."""
    addresses = [address for address, _ in front]
    await load(addresses, per_s / 2.0, 1.5)
    await counts(urls)
    before_s = sum(cpu_s(pid) for _, pid in front)
    asked = await load(addresses, per_s, seconds)
    used_s = sum(cpu_s(pid) for _, pid in front) - before_s
    told = await counts(urls)
    waits = sorted(took_s - service_s for took_s, service_s in asked)
    return {
        "wait_p50_ms": 1e3 * waits[len(waits) // 2],
        "wait_p99_ms": 1e3 * waits[int(0.99 * len(waits))],
        "most": told["most"],
        "late_frac": told["late"] / max(1, told["served"]),
        "goodput_per_s": sum(took_s <= DEADLINE_S for took_s, _ in asked) / seconds,
        "failed": sum(math.isinf(took_s) for took_s, _ in asked),
        "cpu_ms": 1e3 * used_s / len(asked),
    }


def table(results: dict[tuple[float, int, bool], list[dict[str, float]]]) -> None:
    """Print medians of the rounds."""
    print("\n| load | gateways | shared | wait p50 ms | p99 ms | most at once (cap 8) |", end="")
    print(" over the cap | goodput/s | failed | gateways' CPU ms/request |")
    print("|---" * 10 + "|")
    for (factor, count, shares), rows in results.items():
        told = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        most = max(row["most"] for row in rows)
        name = "-" if count == 1 else "yes" if shares else "no"
        print(
            f"| {factor:g} | {count} | {name} | {told['wait_p50_ms']:.0f} | "
            f"{told['wait_p99_ms']:.0f} | {most:.0f} | {100 * told['late_frac']:.1f} % | "
            f"{told['goodput_per_s']:.0f} | {told['failed']:.0f} | {told['cpu_ms']:.2f} |"
        )
    print("(medians of the rounds; most at once: of all)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--loads", default="0.6,0.9", help="parts of the replicas' capacity")
    parser.add_argument("--gateways", default="1,2,4")
    parser.add_argument("--replicas", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replicas:
        uvloop.run(replicas([int(port) for port in given.replicas.split(",")]))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load "
        f"{os.getloadavg()[0]:.1f}; {REPLICAS} replicas of {CAP} places, {SERVICE_S:g} s each: "
        f"{CAPACITY_PER_S:g}/s; seed 1",
        flush=True,
    )
    ports = [free_port() for _ in range(REPLICAS)]
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    command = [sys.executable, __file__, "--replicas", ",".join(map(str, ports))]
    results: dict[tuple[float, int, bool], list[dict[str, float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres_server())
        process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603
        stack.callback(_stop, process)
        assert process.stdout is not None
        process.stdout.readline()
        counts_of = [int(count) for count in given.gateways.split(",")]
        kinds = [(n, shares) for n in counts_of for shares in (True, False) if shares or n > 1]
        for number in range(given.rounds):
            for count, shares in kinds:
                place = folder / f"{number}-{count}-{shares}"
                with gateways(place, count, server.new_database(), urls, shares=shares) as front:
                    for factor in map(float, given.loads.split(",")):
                        rate = factor * CAPACITY_PER_S
                        row = uvloop.run(measure(front, urls, rate, given.seconds))
                        results.setdefault((factor, count, shares), []).append(row)
                        shown = {key: round(value, 3) for key, value in row.items()}
                        print(f"# {factor:g} {count} {shares}: {json.dumps(shown)}", flush=True)
    table(dict(sorted(results.items(), key=lambda one: (one[0][0], one[0][1], not one[0][2]))))


if __name__ == "__main__":
    main()
