"""Trials in the compiled simulator against the reference one, and their search."""

import math

import pytest

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.placement.baselines import policy_named
from steelyard.planner.sizing import SizingAim, at_rate, attained_frac
from steelyard.planner.trials import Trials


def pool(name: str, usd_per_hour: float, speed: float) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.01,
        prefill_s_per_token=0.0005 / speed,
        itl_base_s=0.02 / speed,
        itl_slope_s=0.005 / speed,
        concurrency_cap=4,
        context_tokens=8192,
        predicted=False,
        source="made up",
    )
    return PoolSpec(
        name=name,
        provider="aws",
        region="r",
        arch="arm64",
        hardware="arm",
        offering=f"aws/{name}",
        usd_per_hour=usd_per_hour,
        replicas=1,
        llm_curves={"m": curve},
    )


@pytest.fixture
def aim() -> SizingAim:
    steps = tuple(
        WorkloadStep(
            step_id=number,
            parents=(number - 1,) if number else (),
            kind="llm",
            name=f"s{number % 2}",
            model="m",
            prompt_tokens=300 + 200 * number,
            output_tokens=20,
            shared_prefix_tokens=300 + 200 * (number - 1) if number else 0,
        )
        for number in range(4)
    )
    tasks = tuple(
        WorkloadTask(
            task_id=f"t{at}", agent="a", steps=steps, arrival_s=0.7 * at, deadline_after_s=4.0
        )
        for at in range(40)
    )
    return SizingAim(
        workload=Workload(name="w", tasks=tasks, source="made up"),
        pools=(pool("slow", 1.0, 1.0), pool("fast", 4.0, 2.0)),
        attainment_frac=0.9,
        most=(8, 8),
        bids=lambda counts: {},
        seed=1,
    )


@pytest.mark.parametrize("rate_per_s", [1.0, 2.5])
@pytest.mark.parametrize("name", ["cheapest_feasible", "program_least_attained"])
def test_a_trial_attains_what_the_reference_simulator_says(
    aim: SizingAim, name: str, rate_per_s: float
) -> None:
    aim = SizingAim(
        workload=aim.workload,
        pools=aim.pools,
        attainment_frac=0.0,
        most=aim.most,
        bids=aim.bids,
        seed=aim.seed,
    )
    trial = Trials.of(aim, compiled=False).at(name, (1, 1), rate_per_s)
    told = attained_frac(policy_named(name), at_rate(aim, rate_per_s), (1, 1))
    assert trial.attained_frac == pytest.approx(told)
    assert 0.0 < trial.busy_frac <= 1.0
    assert 0.0 < trial.cached_frac < 1.0


def test_the_highest_rate_keeps_the_aim_and_a_higher_one_does_not(aim: SizingAim) -> None:
    trials = Trials.of(aim, compiled=False)
    best = trials.highest_rate("earliest_deadline", (1, 0), (0.1, 20.0), 6)
    assert best is not None
    assert best.attained_frac >= aim.attainment_frac
    step = math.exp(math.log(200.0) / 2**6)
    above = trials.at("earliest_deadline", (1, 0), best.rate_per_s * step * 1.0001)
    assert above.attained_frac < aim.attainment_frac


def test_no_rate_is_found_where_the_lowest_is_too_high(aim: SizingAim) -> None:
    trials = Trials.of(aim, compiled=False)
    assert trials.highest_rate("earliest_deadline", (1, 0), (50.0, 90.0), 2) is None
