import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    RequestServed,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.domain.workload import Workload
from steelyard.fleet.accounts import OpenAttempt, TaskAccount
from steelyard.fleet.state import FleetState
from steelyard.fleet.task_books import TaskBooks
from steelyard.fleet.view import FleetView
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import Conditions, Outage, simulate

ARRAYS = (
    "rent_usd_per_hour",
    "bid_usd_per_hour",
    "correction",
    "closed",
    "offsets",
    "running",
    "waiting",
    "service_sum_s",
    "prefill_share_sum_s",
    "up",
    "cached_tokens",
)


@pytest.fixture(scope="module")
def events(workload: Workload, fleet: tuple[PoolSpec, ...]) -> tuple[Event, ...]:
    outage = Outage(pool="x86", start_s=4.0, duration_s=3.0)
    conditions = Conditions(outages=(outage,), noise_sigma=0.2)
    return simulate(workload, fleet, CheapestFeasible(), 1, conditions).events


def folded(events: tuple[Event, ...]) -> FleetState:
    state = FleetState()
    for event in events:
        state.apply(event)
    return state


def llm_step(task_id: str = "t", attempt: int = 0) -> Step:
    call = LlmCall(
        model="m",
        input_tokens=100,
        max_output_tokens=10,
        prefix_hashes=(1, 2),
        prefix_tokens=(50, 100),
    )
    return Step(task_id=task_id, step_id=0, agent="a", name="s", call=call, attempt=attempt)


def tool_step(task_id: str = "t") -> Step:
    return Step(task_id=task_id, step_id=0, agent="a", name="s", call=ToolCall(tool="x"))


def same(one: FleetView, other: FleetView) -> bool:
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)
        and one.expected == other.expected
        and one.committed_usd == other.committed_usd
    )


def place(state: FleetState, step: Step, t_s: float) -> None:
    answer = CheapestFeasible()(step, state.view(step, t_s))
    assert isinstance(answer, Decision)
    state.apply(StepPlaced(t_s=t_s, step=step, decision=answer))


def finish(state: FleetState, step: Step, t_s: float, usage: Usage, error_code: str = "") -> None:
    state.apply(
        AttemptFinished(
            t_s=t_s,
            task_id=step.task_id,
            step_id=step.step_id,
            attempt=step.attempt,
            outcome="failed" if error_code else "ok",
            usage=usage,
            cost_usd=0.5,
            error_code=error_code,
        )
    )


def start(state: FleetState, step: Step, t_s: float) -> None:
    state.apply(AttemptStarted(t_s=t_s, task_id=step.task_id, step_id=0, attempt=step.attempt))


@settings(max_examples=20)
@given(cut=st.floats(0.0, 1.0))
def test_a_prefix_and_then_the_rest_is_the_same_as_all(
    events: tuple[Event, ...], cut: float
) -> None:
    at = int(cut * len(events))
    stored = msgspec.json.decode(msgspec.json.encode(events[at:]), type=tuple[Event, ...])
    state = folded(events[:at])
    for event in stored:
        state.apply(event)
    for step in (llm_step(), tool_step()):
        assert same(state.view(step, 99.0), folded(events).view(step, 99.0))


def test_counts_return_to_zero_when_all_attempts_have_finished(events: tuple[Event, ...]) -> None:
    view = folded(events).view(llm_step(), 99.0)
    assert not view.running.any()
    assert not view.waiting.any()
    assert not view.service_sum_s.any()
    assert view.up.all()


def test_counts_are_never_negative(events: tuple[Event, ...]) -> None:
    state = FleetState()
    for event in events:
        state.apply(event)
        view = state.view(tool_step(), event.t_s)
        assert (view.running >= 0.0).all()
        assert (view.waiting >= 0.0).all()


def test_a_view_does_not_change_with_later_events(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    before, again = state.view(llm_step(), 1.0), state.view(llm_step(), 1.0)
    place(state, llm_step(), 1.0)
    start(state, llm_step(), 1.0)
    finish(state, llm_step(), 9.0, Usage(input_tokens=100, output_tokens=5, wall_s=8.0))
    dearer = msgspec.structs.replace(llm_pool, usd_per_hour=9.0)
    state.apply(PoolAdded(t_s=9.0, spec=dearer))
    assert same(before, again)
    assert not same(before, state.view(llm_step(), 9.0))


def test_money_is_reserved_when_placed_and_spent_when_finished(llm_pool: PoolSpec) -> None:
    state = folded(
        (PoolAdded(t_s=0.0, spec=llm_pool), TaskSubmitted(t_s=0.0, task_id="t", agent="a"))
    )
    place(state, llm_step(), 1.0)
    assert state.view(llm_step(), 1.0).committed_usd > 0.0
    start(state, llm_step(), 1.0)
    finish(state, llm_step(), 2.0, Usage(input_tokens=100, output_tokens=5, wall_s=1.0))
    assert state.view(llm_step(), 2.0).committed_usd == pytest.approx(0.5)
    assert state.spent_usd("t") == 0.5
    state.apply(TaskFinished(t_s=2.0, task_id="t", status="succeeded"))
    assert not state.has_task("t")


def test_a_task_without_end_takes_bounded_memory() -> None:
    step = llm_step()
    attempt = OpenAttempt(step=step, pool=0, replica=0, service_s=1.0, reserved_usd=0.0)
    ended = AttemptFinished(
        t_s=1.0, task_id="t", step_id=0, attempt=0, outcome="ok", usage=Usage(), cost_usd=0.0
    )
    account = TaskAccount("a")
    for _ in range(10_100):
        TaskBooks.advance(account, attempt, ended)
    assert len(account.finished) == 10_000


def test_a_replica_that_went_down_has_lost_its_cache(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    step = llm_step()
    place(state, step, 1.0)
    start(state, step, 1.0)
    finish(state, step, 2.0, Usage(input_tokens=100, output_tokens=5, wall_s=1.0))
    assert isinstance(step.call, LlmCall)
    assert state.cached_tokens_on("arm", 0, step.call) == 100
    assert list(state.view(step, 2.0).cached_tokens) == [100.0]
    state.apply(ReplicaChanged(t_s=3.0, pool="arm", replica=0, up=False, reason="test"))
    assert state.cached_tokens_on("arm", 0, step.call) == 0


def test_replicas_keep_their_work_when_the_pool_grows(
    llm_pool: PoolSpec, tool_pool: PoolSpec
) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool), PoolAdded(t_s=0.0, spec=tool_pool)))
    place(state, tool_step(), 1.0)
    state.apply(PoolAdded(t_s=2.0, spec=msgspec.structs.replace(llm_pool, replicas=3)))
    assert list(state.view(tool_step(), 2.0).waiting) == [0.0, 0.0, 0.0, 1.0]


def fail_one_by_one(state: FleetState, failures: int, last_s: float = 0.0) -> None:
    """Attempts that each start when the breaker is closed again; the last one fails at `last_s`."""
    for n in range(failures):
        fails_s = last_s + 100.0 * (n - failures + 1)
        place(state, llm_step(f"t{n}"), fails_s - 0.5)
        start(state, llm_step(f"t{n}"), fails_s - 0.5)
        finish(state, llm_step(f"t{n}"), fails_s, Usage(), error_code="pool_unavailable")


@pytest.mark.parametrize("failures", [1, 2, 3, 5000])
def test_the_breaker_opens_after_three_failures_in_a_row_and_for_at_most_a_minute(
    llm_pool: PoolSpec, failures: int
) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    fail_one_by_one(state, failures)
    assert bool(state.view(llm_step(), 0.1).closed[0]) == (failures < 3)
    assert state.view(llm_step(), 60.0).closed[0]


def test_attempts_that_one_fault_ends_together_count_once(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    steps = [llm_step(f"t{n}") for n in range(4)]
    for step in steps:
        place(state, step, 1.0)
        start(state, step, 1.0)
    for step in steps:
        finish(state, step, 2.0, Usage(), error_code="pool_unavailable")
    assert state.view(llm_step(), 2.1).closed[0]


def test_a_replica_that_is_back_closes_the_breaker(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    fail_one_by_one(state, 3)
    assert not state.view(llm_step(), 0.1).closed[0]
    state.apply(ReplicaChanged(t_s=0.2, pool="arm", replica=0, up=False, reason="test"))
    assert not state.view(llm_step(), 0.3).closed[0]
    state.apply(ReplicaChanged(t_s=0.4, pool="arm", replica=0, up=True, reason="test"))
    assert state.view(llm_step(), 0.5).closed[0]


def test_the_start_of_a_tool_is_not_learned_as_waiting(
    tool_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    curve = msgspec.structs.replace(tool_curve, start_s=0.5)
    state = folded((PoolAdded(t_s=0.0, spec=msgspec.structs.replace(tool_pool, tool_curve=curve)),))
    place(state, tool_step(), 1.0)
    start(state, tool_step(), 1.0)
    # 0.5 s of start, 1 s of CPU and 2 s of waiting.
    finish(state, tool_step(), 4.5, Usage(cpu_s=1.0, wall_s=3.5))
    assert state.view(tool_step(), 5.0).expected.other_s == pytest.approx(2.0)
    place(state, tool_step("next"), 5.0)
    answer = CheapestFeasible()(tool_step(), state.view(tool_step(), 5.0))
    assert isinstance(answer, Decision)
    assert answer.predicted_finish_s == pytest.approx(3.5)


def test_predictions_are_corrected_by_what_was_measured(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    place(state, llm_step(), 1.0)
    start(state, llm_step(), 1.0)
    # The curve says 0.1 s of prefill and 5 * 0.02 s of decoding.
    finish(state, llm_step(), 2.0, Usage(input_tokens=100, output_tokens=5, wall_s=0.4))
    assert state.view(llm_step(), 2.0).correction[0] == pytest.approx(2.0)
    assert math.isfinite(state.view(llm_step(), 2.0).correction[0])


def test_a_draining_replica_keeps_its_caches_and_takes_no_steps(
    llm_pool: PoolSpec,
) -> None:
    state = FleetState()
    state.apply(PoolAdded(t_s=0.0, spec=llm_pool))
    call = LlmCall(
        model="m", input_tokens=9, max_output_tokens=1, prefix_hashes=(7,), prefix_tokens=(9,)
    )
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call)
    decision = CheapestFeasible()(step, state.view(step, 0.0))
    assert isinstance(decision, Decision)
    state.apply(StepPlaced(t_s=0.0, step=step, decision=decision))
    state.apply(AttemptStarted(t_s=0.0, task_id="t", step_id=0, attempt=0))
    usage = Usage(input_tokens=9, output_tokens=1, wall_s=1.0)
    state.apply(
        AttemptFinished(
            t_s=1.0, task_id="t", step_id=0, attempt=0, outcome="ok", usage=usage, cost_usd=0.0
        )
    )

    def change(up: bool, draining: bool) -> tuple[bool, int]:
        state.apply(
            ReplicaChanged(t_s=2.0, pool="arm", replica=0, up=up, reason="", draining=draining)
        )
        return bool(state.view(step, 2.0).up[0]), state.cached_tokens_on("arm", 0, call)

    assert change(up=False, draining=True) == (False, 9)
    assert change(up=True, draining=False) == (True, 9)
    assert change(up=False, draining=True) == (False, 9)
    assert change(up=False, draining=False) == (False, 0)


def chosen_pool(state: FleetState, step: Step) -> tuple[str, ...]:
    """The pool that the policy takes, by plain numbers and by arrays; empty when it refuses."""
    policy = CheapestFeasible()
    view = state.view(step, 1.0)
    answers = (policy(step, view), policy.by_arrays(step, view))
    assert answers[0] == answers[1]
    return tuple({one.pool for one in answers if isinstance(one, Decision)})


def test_a_step_goes_to_its_allowed_pools_alone_and_to_none_that_leaves(
    llm_pool: PoolSpec,
) -> None:
    dear = msgspec.structs.replace(llm_pool, name="dear", usd_per_hour=9.0)
    cheap = msgspec.structs.replace(llm_pool, name="cheap", usd_per_hour=1.0)
    state = folded((PoolAdded(t_s=0.0, spec=dear), PoolAdded(t_s=0.0, spec=cheap)))
    free = llm_step()
    confined = msgspec.structs.replace(free, pools=("dear", "unknown"))
    assert chosen_pool(state, free) == ("cheap",)
    assert chosen_pool(state, confined) == ("dear",)
    running = llm_step("running")
    place(state, running, 0.5)
    state.apply(PoolRemoved(t_s=1.0, pool="cheap"))
    assert [one.name for one in state.pools] == ["dear"]
    assert chosen_pool(state, free) == ("dear",)
    assert chosen_pool(state, msgspec.structs.replace(free, pools=("cheap",))) == ()
    assert state.open_attempts("cheap") == {(running.task_id, running.step_id, 0)}
    state.apply(PoolAdded(t_s=2.0, spec=cheap))
    assert chosen_pool(state, free) == ("cheap",)


def test_a_model_may_go_while_a_step_runs_on_it(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    named, whole = llm_step("named"), llm_step("whole")
    place(state, named, 1.0)
    start(state, named, 1.0)
    decision = CheapestFeasible()(whole, state.view(whole, 1.0))
    assert isinstance(decision, Decision)
    begun = state.begin(whole, decision, 1.0)
    state.apply(PoolAdded(t_s=1.5, spec=msgspec.structs.replace(llm_pool, llm_curves={})))
    usage = Usage(input_tokens=100, output_tokens=5, wall_s=0.4)
    finish(state, named, 2.0, usage)
    state.end(
        begun,
        RequestServed(
            t_s=2.0,
            placed_s=1.0,
            step=whole,
            decision=decision,
            outcome="ok",
            usage=usage,
            cost_usd=0.5,
        ),
    )
    seen = state.view(named, 2.0)
    assert (seen.running[0], seen.waiting[0], seen.correction[0]) == (0.0, 0.0, 1.0)
    assert seen.expected.output_tokens == 5.0
    assert not state.open_attempts(llm_pool.name)


def test_a_pool_that_comes_back_is_another_one(llm_pool: PoolSpec) -> None:
    state = folded((PoolAdded(t_s=0.0, spec=llm_pool),))
    place(state, llm_step(), 0.0)
    start(state, llm_step(), 0.0)
    finish(state, llm_step(), 0.5, Usage(input_tokens=100, output_tokens=5, wall_s=0.4))
    assert state.cached_tokens_on("arm", 0, llm_step().call) > 0  # type: ignore[arg-type]
    fail_one_by_one(state, 3)
    assert not state.view(llm_step(), 1.0).closed[0]
    state.apply(ReplicaChanged(t_s=1.0, pool="arm", replica=0, up=False, reason="", draining=True))
    state.apply(PoolRemoved(t_s=1.0, pool="arm"))
    state.apply(PoolAdded(t_s=1.0, spec=llm_pool))
    view = state.view(llm_step(), 1.0)
    assert (bool(view.up[0]), bool(view.closed[0]), view.cached_tokens[0]) == (True, True, 0.0)
    fail_one_by_one(state, 3, last_s=300.0)
    assert not state.view(llm_step(), 301.0).closed[0]


def test_what_fails_on_a_replica_that_is_gone_says_nothing_of_those_that_are_there(
    llm_pool: PoolSpec,
) -> None:
    two = msgspec.structs.replace(llm_pool, replicas=2)
    state = folded((PoolAdded(t_s=0.0, spec=two),))
    steps = [llm_step(f"t{number}") for number in range(3)]
    decision = CheapestFeasible()(steps[0], state.view(steps[0], 0.0))
    assert isinstance(decision, Decision)
    there = msgspec.structs.replace(decision, replica=1)
    for step in steps:
        state.apply(StepPlaced(t_s=0.0, step=step, decision=there))
    state.apply(PoolAdded(t_s=0.5, spec=llm_pool))
    for number, step in enumerate(steps):
        start(state, step, 1.0 + 2 * number)
        finish(state, step, 2.0 + 2 * number, Usage(), "pool_unavailable")
    view = state.view(steps[0], 6.0)
    assert (list(view.up), list(view.closed)) == ([True], [True])
