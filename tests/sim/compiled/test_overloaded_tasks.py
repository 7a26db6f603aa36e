"""Chains that come far faster than they can be served, for many times their own time."""

import pytest
from tests.sim.compiled.test_agreement import assert_same

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import OnMiss
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.sim import ArrivalProcess, Conditions, StepClass, TaskClass, synthesize
from steelyard.sim.compiled.simulate import Span, simulate_compiled

PLACES = 4
STEPS = 10
STEP_S = 0.2
TIME_S = 5.0 * STEPS * STEP_S
CAPACITY_PER_S = PLACES / (STEPS * STEP_S)
CURVE = LlmCurve(
    ttft_floor_s=0.05,
    prefill_s_per_token=0.0,
    itl_base_s=0.003,
    itl_slope_s=0.0,
    concurrency_cap=PLACES,
    context_tokens=8192,
    predicted=True,
    source="made up",
)
POOL = PoolSpec(
    name="lab",
    provider="local",
    region="here",
    arch="x86_64",
    hardware="gpu",
    offering="local",
    usd_per_hour=1.0,
    replicas=1,
    llm_curves={"m": CURVE},
)


def rush(factor: float, times: float) -> Workload:
    """Tasks of ten steps at so many times what the pool can do, for so many times their time."""
    steps = tuple(
        StepClass(
            step=WorkloadStep(
                step_id=number,
                parents=(number - 1,) if number else (),
                kind="llm",
                name=f"s{number}",
                model="m",
                prompt_tokens=100,
                output_tokens=50,
                max_output_tokens=100,
            ),
            variation=0.3,
        )
        for number in range(STEPS)
    )
    kind = TaskClass(agent="chain", deadline_after_s=TIME_S, steps=steps)
    rate_per_s = factor * CAPACITY_PER_S
    return synthesize(
        (kind,), ArrivalProcess(rate_per_s=rate_per_s), int(rate_per_s * TIME_S * times), seed=5
    )


@pytest.mark.parametrize("on_miss", ["run_late", "refuse"])
def test_an_overload_that_lasts_is_told_the_same_on_both_paths(on_miss: OnMiss) -> None:
    conditions = Conditions(on_miss=on_miss, noise_sigma=0.1)
    assert_same(rush(4.0, 4.0), (POOL,), "cheapest_feasible", conditions, compiled=False)


@pytest.mark.parametrize("on_miss", ["run_late", "refuse"])
def test_most_of_the_capacity_is_left_for_tasks_that_end_in_time(on_miss: OnMiss) -> None:
    workload, until_s = rush(8.0, 10.0), 10.0 * TIME_S
    run = simulate_compiled(
        workload,
        (POOL,),
        "cheapest_feasible",
        3,
        Conditions(on_miss=on_miss, noise_sigma=0.1),
        (Span(until_s=until_s, compiled=False), None),
    )
    from_s = 4.0 * TIME_S
    good = sum(
        from_s <= end_s < until_s and end_s <= task.arrival_s + TIME_S
        for task, end_s in zip(workload.tasks, run.success_s.tolist(), strict=True)
    )
    assert good / (until_s - from_s) > 0.85 * CAPACITY_PER_S
