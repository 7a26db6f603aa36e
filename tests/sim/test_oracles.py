"""The simulator against queueing theory and against SimPy."""

import math
from collections.abc import Generator

import msgspec
import numpy as np
import pytest
import simpy

from steelyard.domain.events import AttemptStarted, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.fleet.state import FleetState
from steelyard.placement.baselines import join_shortest_of_two
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import ArrivalProcess, StepClass, TaskClass, simulate, synthesize


def exponential_tools(rate_per_s: float, tasks: int, seed: int) -> Workload:
    step = WorkloadStep(step_id=0, parents=(), kind="tool", name="s", tool="t", cpu_s=1.0)
    kind = TaskClass(agent="a", steps=(StepClass(step=step),))
    return synthesize((kind,), ArrivalProcess(rate_per_s=rate_per_s), tasks, seed)


def test_steps_take_as_long_beside_others_as_is_predicted(llm_pool: PoolSpec) -> None:
    curve = LlmCurve(
        ttft_floor_s=0.02,
        prefill_s_per_token=0.001,
        itl_base_s=0.01,
        itl_slope_s=0.001,
        concurrency_cap=64,
        context_tokens=8192,
        predicted=False,
        source="",
    )
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": curve}, replicas=1)
    steps = [
        WorkloadStep(
            step_id=0,
            parents=(),
            kind="llm",
            name=f"s{prompt}",
            model="m",
            prompt_tokens=prompt,
            output_tokens=output,
        )
        for prompt, output in ((400, 50), (100, 150))
    ]
    kinds = tuple(TaskClass(agent=step.name, steps=(StepClass(step=step),)) for step in steps)
    # A third of the time is prefill: gaps are half as long again as decode alone.
    work = synthesize(kinds, ArrivalProcess(rate_per_s=0.33 / 0.25), 2_000, seed=3)
    run = simulate(work, (pool,), CheapestFeasible(), seed=0)
    step = Step(
        task_id="new",
        step_id=0,
        agent="s",
        name="s",
        call=LlmCall(model="m", input_tokens=1, max_output_tokens=1),
    )
    state = FleetState()
    for event in run.events:
        state.apply(event)
    # Measured over predicted, in the mean; without the neighbours' prefill it is 1.23.
    assert float(state.view(step, 1e6).correction[0]) == pytest.approx(1.0, abs=0.05)


def servers(tool_pool: PoolSpec, tool_curve: ToolCurve, cores: int, replicas: int) -> PoolSpec:
    curve = msgspec.structs.replace(tool_curve, cores=float(cores), slots=cores)
    return msgspec.structs.replace(tool_pool, tool_curve=curve, replicas=replicas)


def erlang_c_wait_s(arrivals_per_s: float, servers: int, service_s: float) -> float:
    """Mean wait of an M/M/c queue (Erlang C)."""
    load = arrivals_per_s * service_s
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    probability = last / (math.fsum(terms) + last)
    return probability * service_s / (servers - load)


def test_mean_wait_is_that_of_an_mmc_queue(tool_pool: PoolSpec, tool_curve: ToolCurve) -> None:
    pool = servers(tool_pool, tool_curve, cores=3, replicas=1)
    work = exponential_tools(rate_per_s=2.1, tasks=12_000, seed=5)
    run = simulate(work, (pool,), CheapestFeasible(), seed=0)
    placed = {e.step.task_id: e.t_s for e in run.events if isinstance(e, StepPlaced)}
    waits = [e.t_s - placed[e.task_id] for e in run.events if isinstance(e, AttemptStarted)]
    # Waits in a busy queue are correlated: 12,000 of them tell the mean to some 5 %.
    assert np.mean(waits) == pytest.approx(erlang_c_wait_s(2.1, 3, 1.0), rel=0.1)


def test_join_shortest_of_two_follows_its_mean_field_limit(
    tool_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    replicas, load = 100, 0.8
    pool = servers(tool_pool, tool_curve, cores=1, replicas=replicas)
    work = exponential_tools(rate_per_s=load * replicas, tasks=12_000, seed=6)
    run = simulate(work, (pool,), join_shortest_of_two, seed=0)
    came = {e.task_id: e.t_s for e in run.events if isinstance(e, TaskSubmitted)}
    times = [e.t_s - came[e.task_id] for e in run.events if isinstance(e, TaskFinished)]
    # Mitzenmacher 2001: the mean time in the system is the sum of load^(2^i - 2) over i >= 1.
    expected_s = math.fsum(load ** (2**i - 2) for i in range(1, 10))
    assert np.mean(times) == pytest.approx(expected_s, rel=0.06)


def test_ends_are_those_of_simpy(tool_pool: PoolSpec, tool_curve: ToolCurve) -> None:
    work = exponential_tools(rate_per_s=1.8, tasks=300, seed=9)
    environment = simpy.Environment()
    cores = simpy.Resource(environment, capacity=2)
    ends: dict[str, float] = {}

    def task(name: str, arrival_s: float, cpu_s: float) -> Generator[simpy.Event, None, None]:
        yield environment.timeout(arrival_s)
        core = cores.request()
        yield core
        yield environment.timeout(cpu_s)
        cores.release(core)
        ends[name] = environment.now

    for one in work.tasks:
        environment.process(task(one.task_id, one.arrival_s, one.steps[0].cpu_s))
    environment.run()
    pool = servers(tool_pool, tool_curve, cores=2, replicas=1)
    run = simulate(work, (pool,), CheapestFeasible(), seed=0)
    ours = {e.task_id: e.t_s for e in run.events if isinstance(e, TaskFinished)}
    assert ours == pytest.approx(ends, abs=1e-9)
