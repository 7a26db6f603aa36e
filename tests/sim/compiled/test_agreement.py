"""The compiled path against the reference path, event for event."""

import math
from collections.abc import Iterator

import msgspec
import pytest
from tests.sim.test_simulate import llm_task, of

from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    ReplicaChanged,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import OnMiss
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.errors import ConfigError
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import (
    ArrivalProcess,
    Conditions,
    Outage,
    Renting,
    Scaling,
    StepClass,
    TaskClass,
    simulate,
    synthesize,
)
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.rankings import POLICIES
from steelyard.sim.compiled.simulate import Span, simulate_compiled
from steelyard.sim.compiled.translate import has_numba

# time, kind, task, step, attempt, pool, replica, amount
Told = tuple[float, str, str, int, int, int, int, float]

NOWHERE = (-1, -1)
HARSH = Conditions(
    noise_sigma=0.2,
    bids_usd_per_hour={"gpu": 0.5},
    outages=(
        Outage(provider="aws", start_s=4.0, duration_s=5.0),
        Outage(provider="gcp", start_s=6.0, duration_s=9.0),
    ),
)
STRICT = Conditions(on_miss="refuse", service_factor=1.2, max_attempts=1, outages=HARSH.outages)


def told_by_reference(events: tuple[Event, ...], pools: tuple[PoolSpec, ...]) -> Iterator[Told]:
    index = {spec.name: at for at, spec in enumerate(pools)}
    where: dict[tuple[str, int, int], tuple[int, int]] = {}
    for event in events:
        match event:
            case StepPlaced(step=step, decision=decision):
                who = (step.task_id, step.step_id, step.attempt)
                where[who] = (index[decision.pool], decision.replica)
                finish_s = decision.predicted_finish_s
                yield (event.t_s, "step_placed", *who, *where[who], finish_s)
            case StepRefused(step=step):
                who = (step.task_id, step.step_id, step.attempt)
                yield (event.t_s, "step_refused", *who, *NOWHERE, 0.0)
            case AttemptStarted():
                who = (event.task_id, event.step_id, event.attempt)
                yield (event.t_s, "attempt_started", *who, *where[who], 0.0)
            case AttemptFinished():
                who = (event.task_id, event.step_id, event.attempt)
                kind: str = "attempt_finished" if event.outcome == "ok" else "attempt_failed"
                yield (event.t_s, kind, *who, *where[who], event.cost_usd)
            case TaskSubmitted():
                yield (event.t_s, "task_submitted", event.task_id, -1, 0, *NOWHERE, 0.0)
            case TaskFinished():
                kind = f"task_{event.status}"
                yield (event.t_s, kind, event.task_id, -1, 0, *NOWHERE, 0.0)
            case ReplicaChanged():
                kind = "replica_up" if event.up else "replica_down"
                place = (index[event.pool], event.replica)
                yield (event.t_s, kind, "", -1, 0, *place, 0.0)
            case _:
                pass


def told_by_compiled(log: layout.Records, workload: Workload) -> Iterator[Told]:
    ids = [task.task_id for task in sorted(workload.tasks, key=lambda one: one.arrival_s)]
    for entry in log:
        kind: str = layout.CHANGES[int(entry["kind"])]
        task = int(entry["task"])
        yield (
            float(entry["t_s"]),
            kind,
            ids[task] if task >= 0 else "",
            int(entry["step_id"]),
            int(entry["attempt"]),
            int(entry["pool"]),
            int(entry["replica"]),
            0.0 if kind == "task_failed" else float(entry["amount"]),
        )


def assert_same(
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    name: str,
    conditions: Conditions | None = None,
    *,
    compiled: bool = True,
) -> dict[str, int]:
    reference = simulate(workload, pools, policy_named(name), 3, conditions)
    span = Span(logged=True, compiled=compiled)
    run = simulate_compiled(workload, pools, name, 3, conditions, (span, None))
    ours = list(told_by_compiled(run.log, workload))
    theirs = list(told_by_reference(reference.events, pools))
    for our, their in zip(ours, theirs, strict=False):
        assert our[1:7] == their[1:7]
        assert math.isclose(our[0], their[0], rel_tol=1e-9, abs_tol=1e-9)
        assert math.isclose(our[7], their[7], rel_tol=1e-9, abs_tol=1e-12)
    assert len(ours) == len(theirs)
    return run.changes


@pytest.fixture(scope="module")
def chains() -> Workload:
    """Agents of eight steps; models and tools in turn, each prompt repeats the last one."""
    steps: list[StepClass] = []
    for number in range(8):
        prompt = 200 + 100 * (number // 2)
        step = WorkloadStep(
            step_id=number,
            parents=(number - 1,) if number else (),
            kind="tool" if number % 2 else "llm",
            name=f"s{number}",
            model="" if number % 2 else "m",
            tool="shell" if number % 2 else "",
            prompt_tokens=0 if number % 2 else prompt,
            output_tokens=0 if number % 2 else 30,
            shared_prefix_tokens=prompt - 100 if number and number % 2 == 0 else 0,
            cpu_s=0.2 if number % 2 else 0.0,
            think_or_tool_s=0.2 if number % 2 else 0.0,
            memory_bytes=900 if number % 2 else 0,
        )
        steps.append(StepClass(step=step, variation=0.5))
    kind = TaskClass(agent="coder", steps=tuple(steps), deadline_after_s=15.0)
    return synthesize((kind,), ArrivalProcess(rate_per_s=6.0, burstiness=2.0), tasks=60, seed=5)


needs_numba = pytest.mark.skipif(not has_numba(), reason="needs the extra fast")


@needs_numba
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_tells_the_same_story_on_both_paths(
    name: str, workload: Workload, chains: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    lost = 0
    for work in (workload, chains):
        assert_same(work, fleet, name)
        assert_same(work, fleet, name, STRICT)
        lost += assert_same(work, fleet, name, HARSH)["attempt_failed"]
    assert lost > 0


@pytest.mark.parametrize(
    ("name", "deadline_after_s"),
    [("cheapest_feasible", 4.0), *((name, 12.0) for name in POLICIES)],
)
def test_queues_and_caches_are_weighed_the_same_on_both_paths(
    chains: Workload, fleet: tuple[PoolSpec, ...], name: str, deadline_after_s: float
) -> None:
    """Places are scarce: warm replicas have queues, and slow pools take a share of the slack."""
    crowded = tuple(
        msgspec.structs.replace(
            spec,
            replicas=3,
            llm_curves={
                model: msgspec.structs.replace(curve, concurrency_cap=2)
                for model, curve in spec.llm_curves.items()
            },
        )
        for spec in fleet
    )
    tasks = tuple(
        msgspec.structs.replace(
            one, arrival_s=one.arrival_s / 2.0, deadline_after_s=deadline_after_s * (1 + at % 3)
        )
        for at, one in enumerate(chains.tasks)
    )
    busy = msgspec.structs.replace(chains, tasks=tasks)
    assert_same(busy, crowded, name, compiled=False)
    assert_same(busy, crowded, name, HARSH, compiled=False)


@pytest.mark.parametrize("on_miss", ["run_late", "refuse"])
def test_under_overload_the_same_steps_give_way_on_both_paths(
    chains: Workload, fleet: tuple[PoolSpec, ...], on_miss: OnMiss
) -> None:
    """Tasks come ten times too fast: some are late from the start, others while they wait."""
    pools = tuple(msgspec.structs.replace(spec, replicas=1) for spec in fleet)
    tasks = tuple(
        msgspec.structs.replace(
            one, arrival_s=one.arrival_s / 10.0, deadline_after_s=2.0 * (1 + at % 5)
        )
        for at, one in enumerate(chains.tasks)
    )
    busy = msgspec.structs.replace(chains, tasks=tasks)
    conditions = Conditions(noise_sigma=0.2, on_miss=on_miss)
    assert_same(busy, pools, "cheapest_feasible", conditions, compiled=False)


@pytest.mark.parametrize("name", ["cheapest_feasible", "join_shortest_of_two"])
def test_a_fleet_so_large_that_memory_is_asked_for_ahead_is_told_the_same(
    chains: Workload, fleet: tuple[PoolSpec, ...], name: str
) -> None:
    large = (msgspec.structs.replace(fleet[0], replicas=5000), *fleet[1:])
    few = msgspec.structs.replace(chains, tasks=chains.tasks[:20])
    assert_same(few, large, name, compiled=False)


def test_every_policy_has_a_compiled_counterpart() -> None:
    assert set(POLICIES) == set(policy_names())


@needs_numba
def test_budgets_refuse_the_same_steps_on_both_paths(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    tasks = tuple(
        msgspec.structs.replace(one, budget_usd=5e-5 * (at % 10))
        for at, one in enumerate(workload.tasks)
    )
    poor = msgspec.structs.replace(workload, tasks=tasks)
    changes = assert_same(poor, fleet, "cheapest_feasible")
    assert changes["step_refused"] > 0
    assert changes["task_succeeded"] > 0


@needs_numba
def test_a_vendor_paid_per_token_costs_the_same_on_both_paths(
    workload: Workload, fleet: tuple[PoolSpec, ...], llm_curve: LlmCurve
) -> None:
    price = TokenPrice(
        usd_per_input_token=1e-8, usd_per_cached_token=1e-9, usd_per_output_token=3e-8
    )
    vendor = msgspec.structs.replace(
        fleet[2], name="vendor", hardware="vendor", usd_per_hour=0.0, token_price=price
    )
    assert_same(workload, (*fleet, vendor), "cheapest_feasible")


SLOW_STARTS = msgspec.structs.replace(
    HARSH,
    renting={"arm": Renting(start_s=1.5), "gpu": Renting(start_s=4.0), "x86": Renting()},
)


def test_what_starts_after_an_outage_starts_the_same_on_both_paths(
    workload: Workload, chains: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    for work in (workload, chains):
        usual = assert_same(work, fleet, "cheapest_feasible", HARSH, compiled=False)
        slow = assert_same(work, fleet, "cheapest_feasible", SLOW_STARTS, compiled=False)
        assert slow["replica_up"] == usual["replica_up"]
    # One outage begins while the pool still starts after the one before.
    again = Outage(provider="aws", start_s=10.0, duration_s=1.0)
    conditions = msgspec.structs.replace(SLOW_STARTS, outages=(*HARSH.outages, again))
    assert_same(chains, fleet, "cheapest_feasible", conditions, compiled=False)


def hourly(first_hour: float) -> Conditions:
    """Rents and bids that trade places between pools from hour to hour."""
    return msgspec.structs.replace(
        HARSH,
        first_hour=first_hour,
        bids_usd_per_hour={"gpu": 0.5, "arm": 0.9},
        renting={
            "arm": Renting(usd_per_hour_by_hour=(0.5, 4.0, 0.5)),
            "gpu": Renting(bid_usd_per_hour_by_hour=(30.0, 0.2), usd_per_hour_by_hour=(2.0, 9.0)),
            "x86": Renting(usd_per_hour_by_hour=(2.0, 0.1, 0.1), start_s=1.0),
            "tools-arm": Renting(usd_per_hour_by_hour=(0.3, 5.0)),
        },
    )


def test_prices_by_the_hour_are_the_same_on_both_paths(
    workload: Workload, chains: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    slow = tuple(
        msgspec.structs.replace(one, arrival_s=one.arrival_s * 2000.0) for one in chains.tasks
    )
    hours = msgspec.structs.replace(chains, tasks=slow)
    for work, first_hour in ((workload, 8.9993), (chains, 23.9988), (hours, 0.0)):
        conditions = hourly(first_hour)
        assert_same(work, fleet, "cheapest_feasible", conditions, compiled=False)
        first = msgspec.structs.replace(conditions, first_hour=first_hour + 0.5)
        costs = [
            sum(event.cost_usd for event in run.events if isinstance(event, AttemptFinished))
            for run in (
                simulate(work, fleet, CheapestFeasible(), 3, c) for c in (conditions, first)
            )
        ]
        # The hour shows.
        assert not math.isclose(*costs, rel_tol=0.01)


def placed_in(told: Iterator[Told]) -> list[int]:
    return [pool for _, kind, _, _, _, pool, _, _ in told if kind == "step_placed"]


def test_a_step_that_two_pools_lost_is_noted_as_it_may_go_back_to_the_first(
    fleet: tuple[PoolSpec, ...], llm_curve: LlmCurve
) -> None:
    slow = msgspec.structs.replace(llm_curve, itl_base_s=1.0)
    pools = tuple(
        msgspec.structs.replace(
            fleet[0], name=name, hardware="arm", usd_per_hour=usd, llm_curves={"m": slow}
        )
        for name, usd in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    )
    work = of(msgspec.structs.replace(llm_task("t", 0.0, 10, 20), deadline_after_s=900.0))
    first = Outage(pool="a", start_s=1.0, duration_s=2.0)
    once = Conditions(outages=(first,))
    twice = Conditions(outages=(first, Outage(pool="b", start_s=5.0, duration_s=2.0)))
    assert_same(work, pools, "cheapest_feasible", once, compiled=False)
    span = Span(logged=True, compiled=False)
    usual = simulate_compiled(work, pools, "cheapest_feasible", 3, once, (span, None))
    assert usual.notes == ()
    run = simulate_compiled(work, pools, "cheapest_feasible", 3, twice, (span, None))
    assert [note.split(";")[0] for note in run.notes] == [
        "1 times a step was tried anew that had been lost twice or more"
    ]
    reference = simulate(work, pools, policy_named("cheapest_feasible"), 3, twice)
    assert placed_in(told_by_compiled(run.log, work)) == [0, 1, 0]
    assert placed_in(told_by_reference(reference.events, pools)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("renting", "field"),
    [
        (Renting(preemptions_per_hour=1.0), "preemptions_per_hour"),
        (Renting(replicas_by_hour=(3, 1)), "replicas_by_hour"),
        (Renting(scaling=Scaling(max_replicas=3)), "scaling"),
    ],
)
def test_other_renting_is_refused_with_the_cure(
    workload: Workload, fleet: tuple[PoolSpec, ...], renting: Renting, field: str
) -> None:
    conditions = Conditions(renting={"arm": renting})
    with pytest.raises(ConfigError, match=f"arm: .* does not know {field}; run the reference"):
        simulate_compiled(
            workload, fleet, "cheapest_feasible", 3, conditions, (Span(compiled=False), None)
        )
    with pytest.raises(ConfigError, match="outage_patience_s; run the reference"):
        simulate_compiled(
            workload,
            fleet,
            "cheapest_feasible",
            3,
            Conditions(outage_patience_s=1.0),
            (Span(compiled=False), None),
        )


def test_the_kernels_give_the_same_answer_in_plain_python(
    workload: Workload, fleet: tuple[PoolSpec, ...]
) -> None:
    assert_same(workload, fleet, "cheapest_feasible", HARSH, compiled=False)
    assert_same(workload, fleet, "join_shortest_of_two", STRICT, compiled=False)
