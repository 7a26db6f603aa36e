"""Preemption with notice, cold starts, scaling and prices, against hand-made cases and theory."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from tests.sim.test_simulate import POLICY, ends_s, llm_task, of, tool_task

from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    ReplicaChanged,
    StepPlaced,
    StepRefused,
    TaskFinished,
)
from steelyard.domain.pool import PoolSpec, ToolCurve
from steelyard.domain.units import rental_usd
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError
from steelyard.fleet.state import FleetState
from steelyard.ledger.ledger import Ledger
from steelyard.placement.baselines import policy_named
from steelyard.placement.replay import replay
from steelyard.sim import Conditions, Outage, Renting, Scaling, Simulation, simulate


def changes(run: Simulation) -> list[ReplicaChanged]:
    return [one for one in run.events if isinstance(one, ReplicaChanged)]


def kept_busy(seconds: float) -> Workload:
    """A tool that waits so long, on whatever machine."""
    return of(tool_task("long", 0.0, 0.0, seconds))


def with_replicas(pool: PoolSpec, replicas: int) -> PoolSpec:
    return msgspec.structs.replace(pool, replicas=replicas)


def first_notice_s(pool: PoolSpec, renting: Renting, seed: int) -> float:
    conditions = Conditions(renting={pool.name: renting})
    run = simulate(kept_busy(1e7), (pool,), POLICY, seed, conditions)
    return next(one.t_s for one in changes(run) if one.draining)


# ------------------------------------------------------------------ preemption


def test_a_noticed_replica_finishes_what_ends_in_time_and_the_rest_is_retried_elsewhere(
    tool_pool: PoolSpec,
) -> None:
    renting = Renting(preemptions_per_hour=6.0, notice_s=30.0, start_s=100.0)
    notice_s = first_notice_s(tool_pool, renting, seed=4)
    other = msgspec.structs.replace(tool_pool, name="z-other", usd_per_hour=9.0)
    work = of(
        tool_task("ends in time", notice_s - 5.0, 0.0, 30.0),
        tool_task("is cut off", notice_s - 4.0, 0.0, 100.0),
        tool_task("comes later", notice_s + 1.0, 0.0, 1.0),
        tool_task("long", 0.0, 0.0, notice_s + 400.0),
    )
    conditions = Conditions(renting={"tools": renting})
    run = simulate(work, (tool_pool, other), POLICY, 4, conditions)
    where = {
        (one.step.task_id, one.step.attempt): one.decision.pool
        for one in run.events
        if isinstance(one, StepPlaced)
    }
    assert where["ends in time", 0] == where["is cut off", 0] == "tools"
    assert where["comes later", 0] == where["is cut off", 1] == "z-other"
    assert ends_s(run)["ends in time"] == pytest.approx(notice_s + 25.0)
    failed = {e.task_id: e for e in run.events if isinstance(e, AttemptFinished) and e.error_code}
    assert set(failed) == {"is cut off", "long"}
    assert {one.t_s for one in failed.values()} == {notice_s + 30.0}
    assert failed["is cut off"].usage.wall_s == pytest.approx(34.0)
    told = changes(run)[:3]
    assert [one.t_s - notice_s for one in told] == pytest.approx([0.0, 30.0, 130.0])
    assert [one.up for one in told] == [False, False, True]
    assert [one.draining for one in told] == [True, False, False]
    assert all(one.rented for one in told)


def test_times_between_preemptions_are_exponential(tool_pool: PoolSpec) -> None:
    pool = with_replicas(tool_pool, 40)
    renting = Renting(preemptions_per_hour=2.0, start_s=90.0)
    run = simulate(kept_busy(40 * 3600.0), (pool,), POLICY, 1, Conditions(
        renting={"tools": renting}, max_attempts=1000, outage_patience_s=1e6))  # fmt: skip
    gaps: list[float] = []
    ordered = dict.fromkeys(range(40), 0.0)
    for one in changes(run):
        if not one.up:
            gaps.append(one.t_s - ordered[one.replica])
            ordered[one.replica] = one.t_s
    # Some 2,000 of them: their mean is known to 2.2 %, and so is their deviation.
    assert len(gaps) > 1500
    assert np.mean(gaps) == pytest.approx(1800.0, rel=0.08)
    assert np.std(gaps) == pytest.approx(1800.0, rel=0.12)


def test_availability_is_that_of_an_alternating_renewal_process(tool_pool: PoolSpec) -> None:
    pool = with_replicas(tool_pool, 40)
    renting = Renting(preemptions_per_hour=4.0, notice_s=120.0, start_s=300.0)
    conditions = Conditions(renting={"tools": renting}, max_attempts=1000, outage_patience_s=1e6)
    run = simulate(kept_busy(60 * 3600.0), (pool,), POLICY, 2, conditions)
    up_since = dict.fromkeys(range(40), 0.0)
    up_s = 0.0
    for one in changes(run):
        if one.up:
            up_since[one.replica] = one.t_s
        elif one.replica in up_since:
            up_s += one.t_s - up_since.pop(one.replica)
    up_s += math.fsum(run.end_s - since for since in up_since.values())
    # Renewal theory: a lease lasts 1 / rate plus notice. It serves from start_s on until its
    # notice, E[(X - start)+] = mean * exp(-start / mean).
    mean_s = 900.0
    expected = mean_s * math.exp(-300.0 / mean_s) / (mean_s + 120.0)
    assert up_s / (40 * run.end_s) == pytest.approx(expected, rel=0.04)


def test_the_same_seed_preempts_alike_whatever_the_policy(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    conditions = Conditions(
        renting={
            name: Renting(preemptions_per_hour=400.0, notice_s=1.0, start_s=2.0)
            for name in ("arm", "x86", "tools-arm")
        },
        outage_patience_s=30.0,
    )
    seen: dict[tuple[str, int], list[tuple[float, str, int]]] = {}
    for policy, seed in itertools.product(("cheapest_feasible", "round_robin"), (0, 1)):
        runs = [simulate(workload, fleet, policy_named(policy), seed, conditions) for _ in "ab"]
        assert runs[0].events == runs[1].events
        seen[policy, seed] = [
            (one.t_s, one.pool, one.replica) for one in changes(runs[0]) if one.t_s < 10.0
        ]
    assert seen["cheapest_feasible", 0] == seen["round_robin", 0]
    assert seen["cheapest_feasible", 0] != seen["cheapest_feasible", 1]


def test_an_announced_loss_does_not_open_the_breaker(tool_pool: PoolSpec) -> None:
    renting = Renting(preemptions_per_hour=60.0, notice_s=5.0)
    pool = with_replicas(tool_pool, 4)
    work = of(*(tool_task(f"t{n}", 0.1 * n, 0.0, 60.0) for n in range(12)))
    conditions = Conditions(renting={"tools": renting}, max_attempts=100, outage_patience_s=1e5)
    run = simulate(work, (pool,), POLICY, 3, conditions)
    failed = [e for e in run.events if isinstance(e, AttemptFinished) and e.outcome == "failed"]
    assert len(failed) > 4
    state = FleetState()
    step = next(e.step for e in run.events if isinstance(e, StepPlaced))
    for event in run.events:
        state.apply(event)
        assert state.view(step, event.t_s).closed.all() or not isinstance(event, AttemptFinished)


def test_every_decision_under_preemption_and_scaling_is_reproduced_on_the_log(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    conditions = Conditions(
        renting={
            "arm": Renting(preemptions_per_hour=300.0, notice_s=2.0, start_s=1.0),
            "gpu": Renting(
                scaling=Scaling(max_replicas=3, every_s=1.0, hold_s=3.0, slack_s=2.0), start_s=2.0
            ),
            "tools-x86": Renting(replicas_by_hour=(1, 2), usd_per_hour_by_hour=(0.1, 0.9)),
        },
        first_hour=0.999,
        outage_patience_s=20.0,
        noise_sigma=0.2,
    )
    for name in ("cheapest_feasible", "join_shortest_of_two", "program_fcfs"):
        policy = policy_named(name)
        run = simulate(workload, fleet, policy, 3, conditions)
        assert {one.draining for one in changes(run)} == {False, True}
        assert sum(isinstance(e, TaskFinished) for e in run.events) == len(workload.tasks)
        assert all(one.same for one in replay(run.events, policy))
        placed = [e for e in run.events if isinstance(e, StepPlaced | ReplicaChanged)]
        up: dict[tuple[str, int], bool] = {}
        for one in placed:
            if isinstance(one, ReplicaChanged):
                up[one.pool, one.replica] = one.up
            else:
                assert up.get((one.decision.pool, one.decision.replica), True)


# ----------------------------------------------------------------- cold starts


def test_what_comes_back_from_an_outage_starts_first(llm_pool: PoolSpec) -> None:
    conditions = Conditions(
        renting={"arm": Renting(start_s=7.0)},
        outages=(Outage(pool="arm", start_s=1.0, duration_s=2.0),),
        outage_patience_s=60.0,
    )
    run = simulate(of(llm_task("t", 1.5, 100, 10)), (llm_pool,), POLICY, 0, conditions)
    assert [(one.t_s, one.up) for one in changes(run)] == [(1.0, False), (10.0, True)]
    started = next(e for e in run.events if isinstance(e, AttemptStarted))
    assert started.t_s == 10.0


def test_a_step_waits_no_longer_than_its_patience_or_its_deadline(llm_pool: PoolSpec) -> None:
    patient = llm_task("patient", 1.0, 100, 10)
    hurried = msgspec.structs.replace(llm_task("hurried", 1.0, 100, 10), deadline_after_s=4.25)
    conditions = Conditions(
        outages=(Outage(pool="arm", start_s=0.5, duration_s=100.0),), outage_patience_s=10.1
    )
    run = simulate(of(patient, hurried), (llm_pool,), POLICY, 0, conditions)
    refused = {e.step.task_id: e.t_s for e in run.events if isinstance(e, StepRefused)}
    assert refused == pytest.approx({"patient": 11.1, "hurried": 5.25})
    ended = {e.task_id: e.error_code for e in run.events if isinstance(e, TaskFinished)}
    assert set(ended.values()) == {"no_feasible_pool"}


# --------------------------------------------------------------------- scaling


def test_replicas_follow_the_schedule_and_are_ordered_ahead(tool_pool: PoolSpec) -> None:
    renting = Renting(replicas_by_hour=(1, 3, 2), start_s=600.0)
    conditions = Conditions(renting={"tools": renting}, first_hour=0.5)
    run = simulate(kept_busy(3.2 * 3600.0), (tool_pool,), POLICY, 0, conditions)
    added = next(e for e in run.events if isinstance(e, PoolAdded))
    assert added.spec.replicas == 3
    told = [(one.t_s, one.replica, one.up, one.rented) for one in changes(run)]
    assert told == [
        (0.0, 1, False, False),
        (0.0, 2, False, False),
        (1200.0, 1, False, True),
        (1200.0, 2, False, True),
        (1800.0, 1, True, True),
        (1800.0, 2, True, True),
        (5400.0, 2, False, False),
        # The third hour has passed; the table begins anew with one.
        (9000.0, 1, False, False),
    ]
    # Rent is paid from the order on: one, then three from 1200 s, two from 5400 s, one from 9000 s.
    end_s = run.end_s
    replica_s = 1200.0 + 3 * 4200.0 + 2 * 3600.0 + (end_s - 9000.0)
    assert Ledger.of(run.events).rent_usd == pytest.approx(rental_usd(0.2, replica_s))


def test_a_replica_that_is_given_back_finishes_its_steps_first(
    tool_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    renting = Renting(replicas_by_hour=(2, 1))
    work = of(tool_task("a", 0.0, 0.0, 4000.0), tool_task("b", 0.0, 0.0, 5000.0))
    one_slot = msgspec.structs.replace(tool_curve, slots=1)
    full = msgspec.structs.replace(tool_pool, tool_curve=one_slot)
    conditions = Conditions(renting={"tools": renting})
    run = simulate(work, (full,), policy_named("normalised_least_load"), 0, conditions)
    draining, gone = changes(run)
    assert (draining.t_s, draining.draining, draining.rented) == (3600.0, True, True)
    assert gone.t_s in {4000.0, 5000.0}
    assert not gone.rented
    assert not any(isinstance(e, AttemptFinished) and e.outcome != "ok" for e in run.events)


def test_the_number_follows_the_load_between_its_bounds(tool_pool: PoolSpec) -> None:
    # Four slots per replica, half of them to be used: eight tools at once need four replicas.
    scaling = Scaling(min_replicas=1, max_replicas=3, used_frac=0.5, every_s=10.0, hold_s=100.0)
    work = of(
        *(tool_task(f"t{n}", 5.0, 0.0, 95.0) for n in range(8)), tool_task("long", 0.0, 0.0, 400.0)
    )
    conditions = Conditions(renting={"tools": Renting(scaling=scaling, start_s=20.0)})
    run = simulate(work, (tool_pool,), POLICY, 0, conditions)
    told = [(one.t_s, one.up, one.rented) for one in changes(run)]
    assert told[:2] == [(0.0, False, False)] * 2
    assert told[2:6] == [(10.0, False, True)] * 2 + [(30.0, True, True)] * 2
    # All were placed before there was a second replica, so three run beside "long" until 100 s,
    # three until 195 s, two until 290 s. 190 s is the last look at more than four steps, 280 s at
    # more than two.
    assert [t_s for t_s, _, rented in told[6:] if not rented] == [300.0, 390.0]


def test_urgent_steps_count_twice(tool_pool: PoolSpec) -> None:
    def replicas(slack_s: float) -> int:
        scaling = Scaling(max_replicas=9, used_frac=1.0, every_s=10.0, slack_s=slack_s)
        tasks = [
            msgspec.structs.replace(tool_task(f"t{n}", 5.0, 0.0, 50.0), deadline_after_s=70.0)
            for n in range(8)
        ]
        conditions = Conditions(renting={"tools": Renting(scaling=scaling, start_s=1000.0)})
        run = simulate(of(*tasks), (tool_pool,), POLICY, 0, conditions)
        return 1 + sum(one.rented and one.t_s == 10.0 for one in changes(run))

    assert replicas(0.0) == 2
    assert replicas(1000.0) == 3


# ---------------------------------------------------------------------- prices


def test_rent_and_costs_use_the_price_of_the_time(tool_pool: PoolSpec) -> None:
    renting = Renting(usd_per_hour_by_hour=(1.0, 3.0), bid_usd_per_hour_by_hour=(0.5, 2.5))
    conditions = Conditions(renting={"tools": renting}, first_hour=0.75)
    work = of(tool_task("early", 0.0, 360.0), tool_task("late", 1000.0, 360.0))
    run = simulate(work, (tool_pool,), POLICY, 0, conditions)
    costs = {e.task_id: e.cost_usd for e in run.events if isinstance(e, AttemptFinished)}
    # 360 s of one of two cores: a twentieth of the hour.
    assert costs == pytest.approx({"early": 0.05 * 1.0, "late": 0.05 * 3.0})
    bids = {
        e.step.task_id: e.decision.bid_usd_per_hour for e in run.events if isinstance(e, StepPlaced)
    }
    assert bids == {"early": 0.5, "late": 2.5}
    paid = rental_usd(1.0, 900.0) + rental_usd(3.0, run.end_s - 900.0)
    assert Ledger.of(run.events).rent_usd == pytest.approx(paid)
    assert all(one.same for one in replay(run.events, POLICY))


def test_a_policy_moves_to_what_is_cheaper_by_then(tool_pool: PoolSpec) -> None:
    dear = msgspec.structs.replace(tool_pool, name="z-other", usd_per_hour=1.0)
    conditions = Conditions(renting={"tools": Renting(usd_per_hour_by_hour=(0.2, 9.0))})
    work = of(tool_task("early", 0.0, 5.0), tool_task("late", 3700.0, 5.0))
    run = simulate(work, (tool_pool, dear), POLICY, 0, conditions)
    where = {e.step.task_id: e.decision.pool for e in run.events if isinstance(e, StepPlaced)}
    assert where == {"early": "tools", "late": "z-other"}


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("renting", "told"),
    [
        (Renting(start_s=-1.0), "start_s is -1"),
        (Renting(preemptions_per_hour=math.nan), "preemptions_per_hour is nan"),
        (Renting(replicas_by_hour=(0, 0)), "0 all day"),
        (Renting(scaling=Scaling(max_replicas=2, min_replicas=0)), "min_replicas is 0"),
        (Renting(scaling=Scaling(max_replicas=1, min_replicas=2)), "raise it"),
        (Renting(scaling=Scaling(max_replicas=1, every_s=0.0)), "every_s is 0"),
        (Renting(usd_per_hour_by_hour=(-1.0,)), "usd_per_hour_by_hour is -1"),
    ],
)
def test_renting_that_makes_no_sense_is_refused(
    tool_pool: PoolSpec, renting: Renting, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        simulate(of(), (tool_pool,), POLICY, 0, Conditions(renting={"tools": renting}))


def test_renting_of_an_unknown_pool_names_the_nearest(tool_pool: PoolSpec) -> None:
    with pytest.raises(ConfigError, match="'tool' is not in the fleet; did you mean tools"):
        simulate(of(), (tool_pool,), POLICY, 0, Conditions(renting={"tool": Renting()}))
