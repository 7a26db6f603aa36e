import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.test_bounds import pool, workload

from steelyard.domain.events import TaskFinished
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.errors import InfeasiblePlanError
from steelyard.placement.baselines import policy_named
from steelyard.planner.bounds import cost_bound, critical_path_s
from steelyard.planner.bursts import burst_bound
from steelyard.sim import simulate

POOLS = (pool("slow", 1.0, 1.0), pool("fast", 9.0, 2.0))
# Per task 0.15 s of prefill and 20 tokens at itl(4) / 4 = 12.5 ms, on the slow pool.
WORK_USD = 0.4 / 3600.0


def at(arrivals_s: list[float], deadline_s: float | None) -> Workload:
    drawn = workload(len(arrivals_s), deadline_s)
    tasks = tuple(
        msgspec.structs.replace(task, arrival_s=arrival_s)
        for task, arrival_s in zip(drawn.tasks, sorted(arrivals_s), strict=True)
    )
    return msgspec.structs.replace(drawn, tasks=tasks)


def test_a_crowd_asks_for_what_it_must_do_between_arrival_and_deadline() -> None:
    bound = burst_bound(at([0.0] * 50 + [1000.0], 10.0), POOLS, 1.0)
    assert bound.usd_per_hour == pytest.approx(50 * WORK_USD / 10.0 * 3600.0, rel=2e-2)
    assert bound.from_s == 0.0
    assert bound.to_s == pytest.approx(10.0, abs=3.0)


def test_tasks_that_may_fail_are_taken_off_the_crowd() -> None:
    crowd = at([0.0] * 50 + [1000.0], 10.0)
    some = burst_bound(crowd, POOLS, 41 / 51)
    assert some.usd_per_hour == pytest.approx(40 * WORK_USD / 10.0 * 3600.0, rel=1e-2)
    later = burst_bound(crowd, POOLS, 1.0, not_counted=50)
    assert later.usd_per_hour == pytest.approx(WORK_USD / 10.0 * 3600.0, rel=0.3)


def test_without_deadlines_there_is_no_crowd() -> None:
    assert burst_bound(at([0.0] * 50, None), POOLS, 1.0).usd_per_hour == 0.0


def test_deadlines_that_nothing_can_meet_are_told() -> None:
    with pytest.raises(InfeasiblePlanError, match="3 of 3 tasks cannot meet"):
        burst_bound(at([0.0] * 3, 0.01), POOLS, 0.9)


@settings(max_examples=25, deadline=None)
@given(
    arrivals_s=st.lists(st.floats(0.0, 4.0), min_size=1, max_size=12),
    replicas=st.integers(1, 3),
    policy=st.sampled_from(["cheapest_feasible", "earliest_deadline", "program_fcfs"]),
)
def test_no_fleet_that_met_the_deadlines_costs_less(
    arrivals_s: list[float], replicas: int, policy: str
) -> None:
    drawn = at(arrivals_s, 1.5)
    fleet = tuple(msgspec.structs.replace(spec, replicas=replicas) for spec in POOLS)
    met = met_by(drawn, fleet, policy)
    if met == 0:
        return
    bound = burst_bound(drawn, POOLS, met / len(arrivals_s))
    assert bound.usd_per_hour <= 10.0 * replicas + 1e-9


def met_by(drawn: Workload, fleet: tuple[PoolSpec, ...], policy: str) -> int:
    run = simulate(drawn, fleet, policy_named(policy), seed=1)
    due_s = {task.task_id: task.arrival_s + 1.5 for task in drawn.tasks}
    ends = [event for event in run.events if isinstance(event, TaskFinished)]
    return sum(e.status == "succeeded" and e.t_s <= due_s[e.task_id] for e in ends)


def test_with_arrivals_spread_evenly_it_says_no_more_than_the_cost_bound() -> None:
    even = at([0.5 * n for n in range(400)], 3.0)
    bound = burst_bound(even, POOLS[:1], 1.0)
    spread = cost_bound(even, POOLS[:1], 2.0)
    assert 0.9 * spread.usd_per_hour < bound.usd_per_hour <= 1.01 * spread.usd_per_hour


def test_models_of_one_replica_share_the_largest_batch() -> None:
    """Streams of one model may run beside as many of another one as that has places."""
    curve = POOLS[0].llm_curves["m"]
    wider = msgspec.structs.replace(curve, concurrency_cap=40)
    both = msgspec.structs.replace(POOLS[0], llm_curves={"m": curve, "n": wider})
    alone = msgspec.structs.replace(POOLS[0], llm_curves={"m": wider})
    crowd = at([0.0] * 50, 10.0)
    bound, least = (burst_bound(crowd, (spec,), 1.0).usd_per_hour for spec in (both, alone))
    assert bound == pytest.approx(least)
    assert bound < burst_bound(crowd, POOLS[:1], 1.0).usd_per_hour


def test_a_task_alone_asks_for_less_than_one_machine() -> None:
    one = at([0.0], None).tasks[0]
    path_s = critical_path_s(one, POOLS)
    bound = burst_bound(at([0.0], path_s * 1.001), POOLS, 1.0)
    assert 0.0 < bound.usd_per_hour <= 9.0
