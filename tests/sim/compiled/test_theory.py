"""The compiled path against queueing theory, and against SimPy."""

import math
from collections.abc import Generator

import msgspec
import numpy as np
import pytest
import simpy

from steelyard.domain.pool import PoolSpec, ToolCurve
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.sim import ArrivalProcess, StepClass, TaskClass, synthesize
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.simulate import Span, simulate_compiled
from steelyard.sim.compiled.translate import has_numba

pytestmark = [
    pytest.mark.skipif(not has_numba(), reason="needs the extra fast"),
    pytest.mark.timeout(600),
]


def exponential_tools(rate_per_s: float, tasks: int, seed: int) -> Workload:
    step = WorkloadStep(step_id=0, parents=(), kind="tool", name="s", tool="t", cpu_s=1.0)
    kind = TaskClass(agent="a", steps=(StepClass(step=step),))
    return synthesize((kind,), ArrivalProcess(rate_per_s=rate_per_s), tasks, seed)


def servers(tool_pool: PoolSpec, tool_curve: ToolCurve, cores: int, replicas: int) -> PoolSpec:
    curve = msgspec.structs.replace(tool_curve, cores=float(cores), slots=cores)
    return msgspec.structs.replace(tool_pool, tool_curve=curve, replicas=replicas)


def times_s(log: layout.Records, kind: str) -> dict[int, float]:
    chosen = log[log["kind"] == layout.CHANGES.index(kind)]
    return dict(zip(chosen["task"].tolist(), chosen["t_s"].tolist(), strict=True))


def test_mean_wait_is_that_of_an_mmc_queue(tool_pool: PoolSpec, tool_curve: ToolCurve) -> None:
    pool = servers(tool_pool, tool_curve, cores=3, replicas=1)
    work = exponential_tools(rate_per_s=2.1, tasks=60_000, seed=5)
    run = simulate_compiled(work, (pool,), "cheapest_feasible", 0, None, (Span(logged=True), None))
    placed, started = times_s(run.log, "step_placed"), times_s(run.log, "attempt_started")
    waits_s = [started[task] - placed[task] for task in placed]
    load = 2.1
    terms = [load**k / math.factorial(k) for k in range(3)]
    last = load**3 / math.factorial(3) * 3 / (3 - load)
    erlang_c_s = last / (math.fsum(terms) + last) / (3 - load)
    assert np.mean(waits_s) == pytest.approx(erlang_c_s, rel=0.05)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_join_shortest_of_two_follows_its_mean_field_limit(
    load: float, tool_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    replicas = 1000
    pool = servers(tool_pool, tool_curve, cores=1, replicas=replicas)
    work = exponential_tools(rate_per_s=load * replicas, tasks=100_000, seed=6)
    run = simulate_compiled(
        work, (pool,), "join_shortest_of_two", 0, None, (Span(logged=True), None)
    )
    came, went = times_s(run.log, "task_submitted"), times_s(run.log, "task_succeeded")
    # The first fifth fills the empty servers; the last tasks end while nobody comes any more.
    times = [went[task] - came[task] for task in range(20_000, 100_000)]
    # Mitzenmacher 2001: the mean time in the system is the sum of load^(2^i - 2) over i >= 1.
    expected_s = math.fsum(load ** (2**i - 2) for i in range(1, 12))
    assert np.mean(times) == pytest.approx(expected_s, rel=0.04)


def test_ends_are_those_of_simpy_with_two_pools(tool_pool: PoolSpec, tool_curve: ToolCurve) -> None:
    work = exponential_tools(rate_per_s=1.8, tasks=400, seed=9)
    pool = servers(tool_pool, tool_curve, cores=1, replicas=1)
    other = msgspec.structs.replace(pool, name="z", hardware="gpu")
    run = simulate_compiled(
        work, (pool, other), "normalised_least_load", 0, None, (Span(logged=True), None)
    )
    went, placed = times_s(run.log, "task_succeeded"), run.log[run.log["kind"] == layout.PLACED]
    where = dict(zip(placed["task"].tolist(), placed["pool"].tolist(), strict=True))
    environment = simpy.Environment()
    cores = [simpy.Resource(environment, capacity=1) for _ in range(2)]
    ends: dict[int, float] = {}

    def load(at: int) -> int:
        return cores[at].count + len(cores[at].queue)  # pyright: ignore

    def task(number: int, arrival_s: float, cpu_s: float) -> Generator[simpy.Event, None, None]:
        yield environment.timeout(arrival_s)
        # Ties of the load are broken by the predicted end, which learns: taken from the run.
        at = where[number] if load(0) == load(1) else int(load(1) < load(0))
        assert at == where[number]
        core = cores[at].request()
        yield core
        yield environment.timeout(cpu_s)
        cores[at].release(core)
        ends[number] = environment.now

    for number, one in enumerate(work.tasks):
        environment.process(task(number, one.arrival_s, one.steps[0].cpu_s))
    environment.run()
    assert went == pytest.approx(ends, abs=1e-9)
