"""Whatever the renting: no task is lost, nothing is placed where it may not be, books add up."""

import math

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    ReplicaChanged,
    StepPlaced,
    TaskFinished,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.run_figures import run_figures
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay
from steelyard.sim import Conditions, Outage, Renting, Scaling, simulate

small = st.floats(0.0, 8.0, allow_nan=False)
scalings = st.builds(
    Scaling,
    min_replicas=st.integers(1, 2),
    max_replicas=st.integers(3, 5),
    used_frac=st.floats(0.1, 1.0),
    slack_s=small,
    every_s=st.floats(0.5, 5.0),
    hold_s=small,
)
rentings = st.builds(
    Renting,
    start_s=st.sampled_from((0.0, 1.0, 2.5, 7.0)),
    preemptions_per_hour=st.sampled_from((0.0, 200.0, 1000.0)),
    notice_s=st.sampled_from((0.0, 1.0, 4.0)),
    replicas_by_hour=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    scaling=st.none() | scalings,
    usd_per_hour_by_hour=st.lists(st.floats(0.0, 3.0), max_size=3).map(tuple),
    bid_usd_per_hour_by_hour=st.lists(st.floats(0.0, 3.0), max_size=3).map(tuple),
).filter(lambda one: not one.replicas_by_hour or any(one.replicas_by_hour))
outages = st.builds(
    Outage,
    start_s=st.floats(0.0, 20.0),
    duration_s=st.floats(0.5, 9.0),
    provider=st.sampled_from(("aws", "gcp")),
)
worlds = st.builds(
    Conditions,
    renting=st.dictionaries(
        st.sampled_from(("arm", "x86", "gpu", "tools-arm", "tools-x86")), rentings, max_size=5
    ),
    outages=st.lists(outages, max_size=2).map(tuple),
    first_hour=st.sampled_from((0.0, 0.997, 5.995)),
    outage_patience_s=st.sampled_from((0.0, 30.0)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conditions=worlds, seed=st.integers(0, 9))
def test_no_task_is_lost_and_books_add_up(
    workload: Workload, fleet: tuple[PoolSpec, ...], conditions: Conditions, seed: int
) -> None:
    work = msgspec.structs.replace(workload, tasks=workload.tasks[:25])
    policy = CheapestFeasible()
    run = simulate(work, fleet, policy, seed, conditions)
    assert sum(isinstance(e, TaskFinished) for e in run.events) == len(work.tasks)
    assert [e.t_s for e in run.events] == sorted(e.t_s for e in run.events)
    assert all(one.same for one in replay(run.events, policy))
    _check_machines(run.events)
    _check_rent(run.events)


def _check_machines(events: tuple[object, ...]) -> None:
    last: dict[tuple[str, int], ReplicaChanged] = {}
    running: dict[tuple[str, int, int], tuple[str, int]] = {}
    for event in events:
        if isinstance(event, ReplicaChanged):
            place = (event.pool, event.replica)
            assert not (event.up and event.draining)
            assert event.rented or not (event.up or event.draining)
            if not event.rented:
                assert place not in running.values()
            last[place] = event
        elif isinstance(event, StepPlaced):
            place = (event.decision.pool, event.decision.replica)
            assert place not in last or last[place].up
            running[event.step.task_id, event.step.step_id, event.step.attempt] = place
        elif isinstance(event, AttemptStarted):
            place = running[event.task_id, event.step_id, event.attempt]
            assert place not in last or last[place].up or last[place].draining
        elif isinstance(event, AttemptFinished):
            del running[event.task_id, event.step_id, event.attempt]
    assert not running


def _check_rent(events: tuple[object, ...]) -> None:
    """Rent by a sum over every replica, each from one change to the next."""
    ledger = Ledger.of(events)  # type: ignore[arg-type]
    times_s = (ledger.first_s, ledger.last_s)
    price: dict[str, tuple[float, int]] = {}
    gone: set[tuple[str, int]] = set()
    parts: list[float] = []
    at_s = times_s[0]
    for event in [*events, None]:
        t_s = times_s[1] if event is None else getattr(event, "t_s", 0.0)
        until_s = min(max(t_s, at_s), times_s[1])
        for pool, (usd_per_hour, replicas) in price.items():
            rented = sum((pool, index) not in gone for index in range(replicas))
            parts.append(usd_per_hour * rented * (until_s - at_s) / 3600.0)
        at_s = until_s
        if isinstance(event, PoolAdded):
            price[event.spec.name] = (event.spec.usd_per_hour, event.spec.replicas)
        elif isinstance(event, ReplicaChanged):
            (gone.discard if event.rented else gone.add)((event.pool, event.replica))
    assert math.isclose(ledger.rent_usd, math.fsum(parts), rel_tol=1e-9, abs_tol=1e-12)
    told = run_figures(ledger)
    assert math.isclose(
        math.fsum(told.over_time.paid_usd), told.paid_usd, rel_tol=1e-6, abs_tol=1e-9
    )
