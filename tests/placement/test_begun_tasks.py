"""What `refuse` means to a task that has begun."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    PoolAdded,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.task import LlmCall, OnMiss, Step
from steelyard.fleet.state import FleetState
from steelyard.placement.policy import CheapestFeasible

OURS = CheapestFeasible()
PLACES = 2
STEP_S = 1.0
CURVE = LlmCurve(
    ttft_floor_s=0.5,
    prefill_s_per_token=0.0,
    itl_base_s=0.01,
    itl_slope_s=0.0,
    concurrency_cap=PLACES,
    context_tokens=1000,
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


def step(
    task_id: str, step_id: int, deadline_s: float | None = None, on_miss: OnMiss = "run_late"
) -> Step:
    return Step(
        task_id=task_id,
        step_id=step_id,
        agent="a",
        name=f"s{step_id}",
        call=LlmCall(model="m", input_tokens=10, max_output_tokens=50),
        parents=(step_id - 1,) if step_id else (),
        deadline_s=deadline_s,
        on_miss=on_miss,
    )


class Fleet:
    """One replica of two places that run, and steps that wait for them."""

    def __init__(self, waiting: int) -> None:
        self.state = FleetState()
        self.state.apply(PoolAdded(t_s=0.0, spec=POOL))
        self._learn()
        for number in range(PLACES + waiting):
            name = f"other-{number}"
            self._place(step(name, 0), 100.0)
            if number < PLACES:
                self.state.apply(AttemptStarted(t_s=100.0, task_id=name, step_id=0, attempt=0))

    def _learn(self) -> None:
        """A task of two steps of a second each has been seen."""
        submitted = TaskSubmitted(
            t_s=0.0, task_id="seen", agent="a", deadline_s=None, budget_usd=None
        )
        self.state.apply(submitted)
        for number in range(2):
            begun_s = number * STEP_S
            self._place(step("seen", number), begun_s)
            self.state.apply(AttemptStarted(t_s=begun_s, task_id="seen", step_id=number, attempt=0))
            usage = Usage(input_tokens=10, output_tokens=50, wall_s=STEP_S)
            ended = AttemptFinished(
                t_s=begun_s + STEP_S,
                task_id="seen",
                step_id=number,
                attempt=0,
                outcome="ok",
                usage=usage,
                cost_usd=0.0,
            )
            self.state.apply(ended)
        self.state.apply(TaskFinished(t_s=2 * STEP_S, task_id="seen", status="succeeded"))

    def _place(self, one: Step, now_s: float) -> None:
        answer = self.ask(one, now_s)
        assert isinstance(answer, Decision)
        self.state.apply(StepPlaced(t_s=now_s, step=one, decision=answer))

    def ask(self, one: Step, now_s: float = 100.0) -> Decision | Refusal:
        return OURS(one, self.state.view(one, now_s))


def test_a_task_is_refused_at_its_beginning_and_not_half_way() -> None:
    fleet = Fleet(waiting=20)
    assert isinstance(fleet.ask(step("new", 0, 106.0, "refuse")), Refusal)
    begun = fleet.ask(step("begun", 1, 106.0, "refuse"))
    assert isinstance(begun, Decision)
    assert begun.slack_s is not None
    assert begun.slack_s < 0.0


def test_a_begun_task_that_is_surely_late_is_refused() -> None:
    fleet = Fleet(waiting=20)
    assert isinstance(fleet.ask(step("begun", 1, 100.5, "refuse")), Refusal)


def test_a_refused_task_that_asks_again_has_not_begun_by_that() -> None:
    fleet = Fleet(waiting=20)
    again = msgspec.structs.replace(step("new", 3, 106.0, "refuse"), parents=())
    assert isinstance(fleet.ask(again), Refusal)


def test_without_a_queue_refuse_means_the_same_to_begun_tasks_and_to_new_ones() -> None:
    fleet = Fleet(waiting=0)
    for number in range(2):
        assert isinstance(fleet.ask(step("one", number, 104.0, "refuse")), Decision)
        assert isinstance(fleet.ask(step("one", number, 100.5, "refuse")), Refusal)


def slower(times: float) -> PoolSpec:
    """A dear pool that takes so many times as long."""
    curve = msgspec.structs.replace(
        CURVE, ttft_floor_s=times * CURVE.ttft_floor_s, itl_base_s=times * CURVE.itl_base_s
    )
    return msgspec.structs.replace(
        POOL, name="dear", usd_per_hour=9.0, replicas=2, llm_curves={"m": curve}
    )


def test_a_slow_pool_without_a_queue_takes_what_it_ends_in_time() -> None:
    fleet = Fleet(waiting=20)
    fleet.state.apply(PoolAdded(t_s=100.0, spec=slower(3.5)))
    answer = fleet.ask(step("new", 0, 110.0, "refuse"))
    assert isinstance(answer, Decision)
    assert (answer.pool, answer.predicted_wait_s) == ("dear", 0.0)


@settings(max_examples=60)
@given(
    waiting=st.integers(0, 12),
    step_id=st.integers(0, 2),
    deadline_s=st.none() | st.floats(100.0, 115.0),
    on_miss=st.sampled_from(["run_late", "refuse"]),
    times=st.floats(0.5, 8.0),
)
def test_arrays_and_plain_python_agree_on_who_runs_late(
    waiting: int, step_id: int, deadline_s: float | None, on_miss: OnMiss, times: float
) -> None:
    fleet = Fleet(waiting)
    other = slower(times)
    fleet.state.apply(PoolAdded(t_s=50.0, spec=other))
    one = step("one", step_id, deadline_s, on_miss)
    answer = OURS.by_arrays(one, fleet.state.view(one, 101.0))
    assert OURS(one, fleet.state.view(one, 101.0)) == answer
    assert isinstance(one.call, LlmCall)
    assert OURS.by_few(one, fleet.state.few(one, one.call, 101.0)) == answer
    # What is written into the log is read as the same.
    kept = msgspec.json.decode(msgspec.json.encode(answer), type=Decision | Refusal)
    assert kept == answer
