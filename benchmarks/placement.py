"""How long does one placement decision take over 64 pools? Prints machine, date, seed, medians.

python benchmarks/placement.py [--pools 64] [--replicas 4] [--repeats 2000]

`choice` is the scoring of all pools and the choice among them; `decision` adds what the log keeps,
a reason for each pool. The compiled figure is of the same scoring functions inside a kernel.
"""

import argparse
import datetime as dt
import os
import platform
import statistics
import sys
import time
from typing import Any

import msgspec
from simulator import agents, fleet

from steelyard.domain.events import PoolAdded
from steelyard.fleet.state import FleetState
from steelyard.placement.candidates import warm_or_cold
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.predictions import predict
from steelyard.sim import Conditions
from steelyard.sim.compiled.engine import run
from steelyard.sim.compiled.layout import World
from steelyard.sim.compiled.placing import choose
from steelyard.sim.compiled.tables import Sample
from steelyard.sim.compiled.translate import translated
from steelyard.sim.compiled.worlds import make_world
from steelyard.sim.steps import to_steps


def choose_often(world: World, step: float, times: int) -> int:
    """The same decision many times over, inside one kernel."""
    chosen = 0
    for _ in range(times):
        chosen += choose(world, 0, int(step), 0)
    return chosen


def main() -> None:
    """Measure views, choices and decisions in Python, and choices in a kernel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pools", type=int, default=64)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    base = fleet(1)[0]
    pools = tuple(
        msgspec.structs.replace(base, name=f"pool-{at:02}", replicas=options.replicas)
        for at in range(options.pools)
    )
    work = agents(20, 1.0, 1)
    state = FleetState()
    for spec in pools:
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    step = to_steps(work.tasks[0], Conditions())[0]
    assert step is not None
    policy, view = CheapestFeasible(), state.view(step, 0.0)
    made: dict[str, Any] = {
        "view": lambda: state.view(step, 0.0),
        "predictions": lambda: predict(step, view, warm_or_cold),
        "decision": lambda: policy(step, view),
    }
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}; "
        f"{dt.datetime.now(tz=dt.UTC).date()}; seed 1, {options.pools} pools of "
        f"{options.replicas} replicas, medians of {options.repeats}"
    )
    for name, call in made.items():
        took_us: list[float] = []
        for _ in range(options.repeats):
            began_s = time.perf_counter()
            call()
            took_us.append((time.perf_counter() - began_s) * 1e6)
        print(f"{name:24} in Python  {statistics.median(took_us):9.1f} us")
    told = (60.0, 1, False)
    world = make_world(Sample.of(work), pools, Conditions(), policy.name, 1, told)
    # A world with a task under way; the first task takes slot 0.
    translated(run, compiled=False)(world, work.tasks[0].arrival_s, 1)
    kernel: Any = translated(choose_often)
    kernel(world, 0.0, 1)
    took_us = []
    for _ in range(20):
        began_s = time.perf_counter()
        kernel(world, 0.0, 1000)
        took_us.append((time.perf_counter() - began_s) * 1e3)
    print(f"{'choice':24} compiled   {statistics.median(took_us):9.2f} us")
    took_us = []
    for _ in range(options.repeats):
        began_s = time.perf_counter()
        kernel(world, 0.0, 1)
        took_us.append((time.perf_counter() - began_s) * 1e6)
    print(f"{'choice, called from Python':24} compiled {statistics.median(took_us):9.1f} us")


if __name__ == "__main__":
    main()
