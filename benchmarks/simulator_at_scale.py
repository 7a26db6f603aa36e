"""How fast is the simulator's compiled path, per core? Prints machine, date, seed and figures.

python benchmarks/simulator_at_scale.py [--replicas 10000,100000,1000000] [--steps 4000000]

An event is a change of state of the simulated world: a task arrives, a step is placed, an attempt
starts, its prefill begins, its first token is there, a tool begins or ends computing, an attempt
ends, a task ends. Alarms that only re-time a replica are not counted. An agent's step has five.
`queue` is the plain case that the published figures of SimPy and of a calendar queue in Numba are
about: power of two choices, one job of one step, two events counted per job (arrival, departure).
Speed is per second of CPU time of one thread, so that other work on the machine counts little.
`two cells at once` are two fleets that share nothing on two threads, per second on the wall.
"""

import argparse
import datetime as dt
import os
import platform
import statistics
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import simpy
from simulator import agents, fleet

from steelyard.domain.pool import PoolSpec, ToolCurve
from steelyard.domain.workload import WorkloadStep, WorkloadTask
from steelyard.sim.compiled.simulate import CompiledRun, Span, simulate_compiled
from steelyard.sim.compiled.tables import Sample

# Tasks per second and unit of fleet (44 replicas): some five streams on a replica of models.
TASKS_PER_S = 20.0


def agent_sample(replicas: int, steps: int, seed: int) -> tuple[Sample, tuple[PoolSpec, ...]]:
    """Agents of ten steps with 500 different tasks, and a fleet of five pools."""
    size = max(1, replicas // 44)
    different = agents(500, 1.0, seed).tasks
    random = np.random.default_rng(seed)
    count = steps // 10
    times_s = np.cumsum(random.exponential(1.0 / (TASKS_PER_S * size), count))
    drawn = random.integers(len(different), size=count)
    return Sample.drawn_from(different, times_s, drawn, seed), fleet(size)


def queue_sample(replicas: int, jobs: int, seed: int) -> tuple[Sample, tuple[PoolSpec, ...]]:
    """Jobs of one step with exponential length, 80 % load, one at a time on a replica."""
    random = np.random.default_rng(seed)
    lengths_s = random.exponential(1.0, 4096)
    tasks = tuple(
        WorkloadTask(
            task_id=str(at),
            agent="a",
            arrival_s=0.0,
            steps=(
                WorkloadStep(
                    step_id=0, parents=(), kind="tool", name="s", tool="t", cpu_s=float(length_s)
                ),
            ),
        )
        for at, length_s in enumerate(lengths_s)
    )
    curve = ToolCurve(
        relative_speed=1.0,
        cores=1.0,
        memory_bytes=1,
        start_s=0.0,
        slots=1,
        predicted=True,
        source="benchmark",
    )
    pool = msgspec.structs.replace(fleet(1)[3], tool_curve=curve, replicas=replicas, name="servers")
    times_s = np.cumsum(random.exponential(1.0 / (0.8 * replicas), jobs))
    drawn = random.integers(len(tasks), size=jobs)
    return Sample.drawn_from(tasks, times_s, drawn, seed), (pool,)


def timed(
    given: tuple[Sample, tuple[PoolSpec, ...]], policy: str, repeats: int, seed: int
) -> tuple[CompiledRun, list[float]]:
    """The last of the runs, and of each the events per CPU second."""
    paces_per_s: list[float] = []
    sample, pools = given
    run = None
    for _ in range(repeats):
        marks: list[tuple[float, int]] = []

        def mark(now_s: float, events: int, marks: list[tuple[float, int]] = marks) -> None:
            del now_s
            marks.append((time.thread_time(), events))

        # The first call comes when the arrays first grow; neither the time nor the events before
        # it are counted.
        run = simulate_compiled(sample, pools, policy, seed, None, (Span(actions=200_000), mark))
        if run.changes["task_succeeded"] + run.changes["task_failed"] != len(sample.arrival_s):
            sys.exit(f"not every task has ended: {run.changes}")
        began_s, before = marks[0]
        paces_per_s.append((run.events - before) / (time.thread_time() - began_s))
    assert run is not None
    return run, paces_per_s


def two_cells_per_s(given: tuple[Sample, tuple[PoolSpec, ...]], policy: str, seed: int) -> float:
    """Events per second on the wall of two such fleets, each on a thread of its own."""

    def one(_: int) -> CompiledRun:
        return simulate_compiled(*given, policy, seed)

    began_s = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(one, range(2)))
    return sum(run.events for run in runs) / (time.perf_counter() - began_s)


def simpy_events_per_s(jobs: int, seed: int) -> float:
    """Power of two choices on 1,000 servers in SimPy; two events per job."""
    random = np.random.default_rng(seed)
    environment = simpy.Environment()
    servers = [simpy.Resource(environment, capacity=1) for _ in range(1000)]
    gaps_s = random.exponential(1.0 / 800.0, jobs)
    lengths_s = random.exponential(1.0, jobs)
    draws = random.integers(1000, size=(jobs, 2))

    def job(server: simpy.Resource, length_s: float) -> Generator[simpy.Event, None, None]:
        with server.request() as turn:
            yield turn
            yield environment.timeout(length_s)

    def source() -> Generator[simpy.Event, None, None]:
        for at in range(jobs):
            yield environment.timeout(float(gaps_s[at]))
            one, other = servers[draws[at, 0]], servers[draws[at, 1]]
            is_one = one.count + len(one.queue) <= other.count + len(other.queue)
            environment.process(job(one if is_one else other, float(lengths_s[at])))

    environment.process(source())
    began_s = time.process_time()
    environment.run()
    return 2.0 * jobs / (time.process_time() - began_s)


def main() -> None:
    """Measure agents and plain queues on fleets of three sizes, and SimPy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", default="10000,100000,1000000")
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--two-cells", action="store_true", help="two threads as well")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}; "
        f"{dt.datetime.now(tz=dt.UTC).date()}; seed {options.seed}, "
        f"at least {options.steps:,} steps, median of {options.repeats}, one thread"
    )
    print(f"{'case':32} {'replicas':>9} {'events':>12} {'events/s':>12} {'steps/s':>12}")
    simulate_compiled(*agent_sample(44, 1000, 1), "cheapest_feasible", 1)
    for replicas in [int(one) for one in options.replicas.split(",")]:
        sized = (replicas, max(options.steps, 8 * replicas), options.seed)
        for case, given, policy in (
            ("agents, cheapest_feasible", agent_sample(*sized), "cheapest_feasible"),
            ("agents, join_shortest_of_two", agent_sample(*sized), "join_shortest_of_two"),
            ("queue, join_shortest_of_two", queue_sample(*sized), "join_shortest_of_two"),
        ):
            run, paces_per_s = timed(given, policy, options.repeats, options.seed)
            median_s = run.events / statistics.median(paces_per_s)
            placed = run.changes["step_placed"]
            events = 2 * placed if case.startswith("queue") else run.events
            count = sum(pool.replicas for pool in given[1])
            print(
                f"{case:32} {count:9,} {events:12,} {events / median_s:12,.0f} "
                f"{placed / median_s:12,.0f}",
                flush=True,
            )
        if options.two_cells:
            pace_per_s = statistics.median(
                two_cells_per_s(agent_sample(*sized), "cheapest_feasible", options.seed)
                for _ in range(options.repeats)
            )
            case = "agents, two cells at once"
            print(f"{case:32} {2 * replicas:9,} {'':12} {pace_per_s:12,.0f}", flush=True)
    simpy_per_s = simpy_events_per_s(50_000, options.seed)
    print(f"{'queue, SimPy':32} {1000:9,} {100_000:12,} {simpy_per_s:12,.0f}")


if __name__ == "__main__":
    main()
