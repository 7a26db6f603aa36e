import msgspec
import pytest

from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError, SolverError
from steelyard.placement.baselines import policy_named
from steelyard.planner import bounds
from steelyard.planner.bounds import cost_bound, critical_path_s, fleet_bound
from steelyard.planner.sizing import SizingAim, cheapest_fleet_for, highest_rate_per_s


def pool(name: str, rent: float, speed: float, replicas: int = 1) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.0,
        prefill_s_per_token=0.001 / speed,
        itl_base_s=0.01 / speed,
        itl_slope_s=0.01 / speed,
        concurrency_cap=4,
        context_tokens=8192,
        predicted=True,
        source="test",
    )
    return PoolSpec(
        name=name, provider="p", region="r", arch="arm64", hardware="arm", offering=name,
        usd_per_hour=rent, replicas=replicas, llm_curves={"m": curve},
    )  # fmt: skip


def workload(tasks: int, deadline_s: float | None) -> Workload:
    steps = tuple(
        WorkloadStep(
            step_id=n, parents=(n - 1,) if n else (), kind="llm", name="s", model="m",
            prompt_tokens=100 + 50 * n, output_tokens=10, shared_prefix_tokens=100 if n else 0,
        )
        for n in range(2)
    )  # fmt: skip
    return Workload(
        name="w",
        source="test",
        tasks=tuple(
            WorkloadTask(
                task_id=f"t{n}", agent="a", arrival_s=float(n), steps=steps,
                deadline_after_s=deadline_s,
            )
            for n in range(tasks)
        ),
    )  # fmt: skip


def test_the_critical_path_adds_up_the_fastest_steps() -> None:
    task = workload(1, None).tasks[0]
    # 100 and 50 uncached tokens at 1 ms, twice 10 tokens at itl(1) = 20 ms.
    assert critical_path_s(task, (pool("slow", 1.0, 1.0),)) == pytest.approx(0.55)
    fleet = (pool("slow", 1.0, 1.0), pool("fast", 9.0, 2.0))
    assert critical_path_s(task, fleet) == pytest.approx(0.275)


def test_the_cost_bound_is_the_used_time_at_a_full_batch() -> None:
    bound = cost_bound(workload(3, None), (pool("slow", 1.0, 1.0),), tasks_per_s=2.0)
    # Per task 0.15 s of prefill and 20 tokens at itl(4) / 4 = 12.5 ms.
    assert bound.replicas["slow"] == pytest.approx(2.0 * (0.15 + 0.25))
    assert bound.usd_per_hour == pytest.approx(0.8)
    assert bound.bid_usd_per_hour["slow"] == pytest.approx(1.0)
    whole = cost_bound(workload(3, None), (pool("slow", 1.0, 1.0),), tasks_per_s=2.0, whole=True)
    assert whole.usd_per_hour == pytest.approx(1.0, rel=1e-3)


def test_models_of_one_replica_share_the_largest_batch() -> None:
    alone = pool("slow", 1.0, 1.0)
    wider = msgspec.structs.replace(alone.llm_curves["m"], concurrency_cap=40)
    both = msgspec.structs.replace(alone, llm_curves={"m": alone.llm_curves["m"], "n": wider})
    wide = msgspec.structs.replace(alone, llm_curves={"m": wider})
    dear, bound, least = (
        cost_bound(workload(3, None), (spec,), 1.0).usd_per_hour for spec in (alone, both, wide)
    )
    assert bound == pytest.approx(least)
    assert bound < dear


def test_a_deadline_makes_the_bound_dearer_and_at_last_infeasible() -> None:
    pools = (pool("slow", 1.0, 1.0), pool("fast", 4.0, 2.0))
    costs = [
        cost_bound(workload(3, deadline_s), pools, 1.0).usd_per_hour
        for deadline_s in (None, 1.0, 0.6, 0.3)
    ]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    with pytest.raises(InfeasiblePlanError, match="in the mean deadline"):
        cost_bound(workload(3, 0.2), pools, 1.0)


def test_limited_pools_bid_more_than_their_rent() -> None:
    pools = (pool("cheap", 1.0, 1.0), pool("dear", 5.0, 1.0))
    bound = cost_bound(workload(3, None), pools, 10.0, most={"cheap": 2})
    assert bound.bid_usd_per_hour["cheap"] == pytest.approx(5.0)
    assert bound.replicas["cheap"] == pytest.approx(2.0)


def test_bids_of_a_fleet_add_up_to_its_rent() -> None:
    fleet = (pool("slow", 1.0, 1.0, 3), pool("fast", 4.0, 2.0, 2))
    bids = fleet_bound(workload(3, None), fleet, 1.0).bid_usd_per_hour
    assert 3 * bids["slow"] + 2 * bids["fast"] == pytest.approx(11.0)


@pytest.fixture
def aim() -> SizingAim:
    return SizingAim(
        workload=workload(60, 2.0),
        pools=(pool("slow", 1.0, 1.0), pool("fast", 4.0, 2.0)),
        attainment_frac=0.99,
        most=(8, 8),
        bids=lambda counts: {},
        seed=1,
    )


def test_the_cheapest_fleet_keeps_the_aim_and_never_beats_the_bound(aim: SizingAim) -> None:
    found = cheapest_fleet_for(policy_named("earliest_deadline"), aim, ((1.0, 0.0), (0.0, 1.0)))
    assert found.attainment_frac >= 0.99
    bound = cost_bound(aim.workload, aim.pools, 1.0)
    assert found.usd_per_hour >= bound.usd_per_hour
    assert found.counts == (1, 0)


def test_a_fleet_serves_no_more_than_its_bound(aim: SizingAim) -> None:
    rate = highest_rate_per_s(policy_named("earliest_deadline"), aim, (2, 0), (0.5, 5.0))
    assert 0.5 < rate <= 5.0


def test_a_solver_that_was_cut_short_gives_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_TIME_LIMIT_S", 0.0)
    with pytest.raises(SolverError, match="take fewer tasks or pools"):
        cost_bound(workload(4, 9.0), (pool("a", 1.0, 1.0), pool("b", 3.0, 2.0)), 1.0)
