"""Does goodput of whole tasks hold when far more come than the upstream can do?

Run as `python benchmarks/gateway/overload_tasks.py [--steps N] [--seconds S]`. As overload.py, with
the same upstream and gateway, but each client has a task of N requests, one after another, which
`Steelyard-Task` names; the task has five times as long as its requests take alone. A client leaves
at its deadline and gives up when it is refused. Tasks come at fixed times, first at half of what
the upstream can do, then at 1, 2, 5 and 10 times that. Goodput is the tasks per second that ended
in time; the first six tenths of each rate are not counted. That a task is over the gateway learns
from two seconds of silence (`gateway.task_idle_s`, usually 600). ADR 38 has what it showed.
"""

import argparse
import asyncio
import datetime as dt
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from overload import CAPACITY_PER_S, FACTORS, SERVICE_S, Load, bounded, upstream

STRETCH = 5.0
_RAMP_FRAC = 0.6
_IDLE_S = 2.0


class Chain:
    """One task: requests one after another."""

    def __init__(self, name: str, steps: int) -> None:
        self.name = name
        self.steps = steps
        self.done = 0
        self.status = 0
        self.ended_s = 0.0

    async def run(self, load: Load) -> None:
        """Ask until all is answered, or one is not."""
        begun_s, allowed_s = time.monotonic(), STRETCH * SERVICE_S * self.steps
        more = (
            f"Steelyard-Task: {self.name}",
            "Steelyard-Agent: chain",
            f"Steelyard-Deadline: {allowed_s:g}",
        )
        while self.done < self.steps:
            now_s = time.monotonic()
            asked = await load.ask(now_s, begun_s + allowed_s - now_s, more)
            self.status = asked.status
            if not asked.good:
                return
            self.done += 1
        self.ended_s = time.monotonic()


class Clients:
    """Starts tasks at fixed times."""

    def __init__(self, load: Load, steps: int) -> None:
        self._load = load
        self._steps = steps
        self._number = 0

    async def at_rate(self, per_s: float, seconds: float) -> list[Chain]:
        """Start tasks; returns when all have ended."""
        started_s, chains, running = time.monotonic(), [], []
        for number in range(int(per_s * seconds)):
            if (wait_s := started_s + number / per_s - time.monotonic()) > 0.0:
                await asyncio.sleep(wait_s)
            self._number += 1
            chains.append(Chain(f"chain-{self._number}", self._steps))
            running.append(asyncio.ensure_future(chains[-1].run(self._load)))
        await asyncio.gather(*running)
        return chains


def row(chains: list[Chain], from_s: float, to_s: float) -> dict[str, Any]:
    """What came of the tasks that were started at one rate."""
    good = sum(one.done == one.steps and from_s <= one.ended_s < to_s for one in chains)
    given_up = [one for one in chains if one.done < one.steps]
    return {
        "goodput_per_s": round(good / (to_s - from_s), 2),
        "sent": len(chains),
        "never_begun": sum(one.done == 0 for one in given_up),
        "half_done": sum(one.done > 0 for one in given_up),
        "statuses": {str(s): n for s, n in sorted(Counter(one.status for one in chains).items())},
    }


async def measure(port: int, on_miss: str, key: str, steps: int, seconds: float) -> None:
    """Measure one mode and print its rows."""
    clients, best = Clients(Load(port, key, on_miss), steps), 0.0
    capacity_per_s = CAPACITY_PER_S / steps
    await clients.at_rate(capacity_per_s / 2, seconds / 2)
    await asyncio.sleep(2 * _IDLE_S)
    for factor in FACTORS:
        begun_s = time.monotonic()
        chains = await clients.at_rate(factor * capacity_per_s, seconds)
        told = row(chains, begun_s + _RAMP_FRAC * seconds, begun_s + seconds)
        best = max(best, told["goodput_per_s"])
        told["of_peak_frac"] = round(told["goodput_per_s"] / best, 3) if best else 0.0
        print(f"{on_miss} at {factor}x: {json.dumps(told)}", flush=True)
        await asyncio.sleep(2 * _IDLE_S)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    parser.add_argument("--port", type=int, default=18600)
    given = parser.parse_args()
    python, today = sys.version.split()[0], dt.datetime.now(tz=dt.UTC)
    print(f"{today:%Y-%m-%d} {platform.machine()}, Python {python}")
    per_s = CAPACITY_PER_S / given.steps
    print(f"capacity {per_s:.3g} tasks/s of {given.steps} requests, {SERVICE_S:g} s each")
    gateway = bounded(f"task_idle_s = {_IDLE_S}")
    for number, on_miss in enumerate(("refuse", "run_late")):
        port = given.port + 10 * number
        with (
            tempfile.TemporaryDirectory() as folder,
            upstream(port + 1),
            gateway.running(Path(folder) / "gateway", port, port + 1, None),
        ):
            uvloop.run(measure(port, on_miss, gateway.key, given.steps, given.seconds))


if __name__ == "__main__":
    main()
