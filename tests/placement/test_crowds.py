import msgspec
import pytest
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
        deadline_s=deadline_s,
        on_miss=on_miss,
    )


class Fleet:
    """One replica of two places, and what happens there."""

    def __init__(self, steps: int, pool: PoolSpec = POOL) -> None:
        """Tasks of so many steps have been seen."""
        self.state = FleetState()
        self.state.apply(PoolAdded(t_s=0.0, spec=pool))
        for number in range(3):
            name, now_s = f"seen-{number}", 0.0
            self.submit(name)
            for step_id in range(steps):
                self.place(step(name, step_id), now_s)
                self.start(name, step_id, now_s)
                now_s += STEP_S
                self.finish(name, step_id, now_s)
            self.state.apply(TaskFinished(t_s=now_s, task_id=name, status="succeeded"))

    def submit(self, name: str) -> None:
        self.state.apply(
            TaskSubmitted(t_s=0.0, task_id=name, agent="a", deadline_s=None, budget_usd=None)
        )

    def ask(self, one: Step, now_s: float = 100.0) -> Decision | Refusal:
        return OURS(one, self.state.view(one, now_s))

    def place(self, one: Step, now_s: float = 100.0) -> Decision:
        answer = self.ask(one, now_s)
        assert isinstance(answer, Decision)
        self.state.apply(StepPlaced(t_s=now_s, step=one, decision=answer))
        return answer

    def start(self, name: str, step_id: int, now_s: float = 100.0) -> None:
        self.state.apply(AttemptStarted(t_s=now_s, task_id=name, step_id=step_id, attempt=0))

    def finish(self, name: str, step_id: int, now_s: float = 100.0) -> None:
        usage = Usage(input_tokens=10, output_tokens=50, wall_s=STEP_S)
        self.state.apply(
            AttemptFinished(
                t_s=now_s,
                task_id=name,
                step_id=step_id,
                attempt=0,
                outcome="ok",
                usage=usage,
                cost_usd=0.0,
            )
        )

    def fill(self, steps: int = 4) -> None:
        """Two tasks run."""
        for number in range(PLACES):
            self.submit(f"runs-{number}")
            self.place(step(f"runs-{number}", 0))
            self.start(f"runs-{number}", 0)

    def crowd(self, tasks: int) -> list[Decision]:
        """So many more wait to begin."""
        placed: list[Decision] = []
        for number in range(tasks):
            self.submit(f"waits-{number}")
            placed.append(self.place(step(f"waits-{number}", 0, deadline_s=200.0)))
        return placed


def test_a_first_step_stands_behind_the_whole_tasks_in_front_of_it() -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    crowds_s = [one.crowd_s for one in fleet.crowd(4)]
    later_s = 3 * STEP_S
    assert crowds_s == pytest.approx([number * later_s / PLACES for number in range(4)])


def test_tasks_of_one_step_make_no_crowd() -> None:
    fleet = Fleet(steps=1)
    fleet.fill()
    assert [(one.crowd_s, one.later_s) for one in fleet.crowd(4)] == [(0.0, 0.0)] * 4


def test_a_step_of_a_task_that_has_begun_does_not_wait_behind_those_that_have_not() -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    alone = fleet.ask(step("runs-0", 1, deadline_s=200.0))
    fleet.crowd(8)
    crowded = fleet.ask(step("runs-0", 1, deadline_s=200.0))
    first = fleet.ask(step("new", 0, deadline_s=200.0))
    assert isinstance(alone, Decision)
    assert isinstance(crowded, Decision)
    assert isinstance(first, Decision)
    # The first of the crowd found nobody in front, and goes by its slack.
    assert crowded.predicted_wait_s <= alone.predicted_wait_s + STEP_S / PLACES + 1e-9
    assert first.predicted_wait_s + first.crowd_s > 8 * 4 * STEP_S / PLACES


def test_a_new_task_is_refused_at_the_door_where_a_begun_one_is_let_in() -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    fleet.crowd(8)
    deadline_s = 112.0
    refused = fleet.ask(step("new", 0, deadline_s, "refuse"))
    assert isinstance(refused, Refusal)
    assert refused.retry_after_s is not None
    assert refused.retry_after_s > 0.0
    assert isinstance(fleet.ask(step("runs-0", 1, deadline_s, "refuse")), Decision)


def test_a_task_that_was_refused_and_asks_again_has_not_begun() -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    fleet.crowd(8)
    fleet.submit("again")
    again = fleet.ask(step("again", 1, deadline_s=200.0))
    assert isinstance(again, Decision)
    assert not again.begun
    assert again.crowd_s > 0.0
    fleet.place(step("again", 1, deadline_s=200.0))
    fleet.start("again", 1)
    later = fleet.ask(step("again", 2, deadline_s=200.0))
    assert isinstance(later, Decision)
    assert later.begun


def test_steps_without_deadline_neither_make_a_crowd_nor_mind_one() -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    fleet.crowd(3)
    before = fleet.ask(step("new", 0, deadline_s=200.0))
    fleet.submit("patient")
    patient = fleet.place(step("patient", 0))
    after = fleet.ask(step("new", 0, deadline_s=200.0))
    assert isinstance(before, Decision)
    assert isinstance(after, Decision)
    assert patient.crowd_s == patient.later_s == 0.0
    assert before.crowd_s == after.crowd_s


@settings(max_examples=40)
@given(
    steps=st.integers(1, 6),
    waiting=st.lists(st.floats(100.0, 140.0), max_size=10),
    deadline_s=st.none() | st.floats(100.0, 140.0),
    on_miss=st.sampled_from(["run_late", "refuse"]),
    begun=st.booleans(),
)
def test_crowds_are_seen_alike_by_arrays_and_in_plain_python(
    steps: int, waiting: list[float], deadline_s: float | None, on_miss: OnMiss, begun: bool
) -> None:
    other = msgspec.structs.replace(POOL, name="dear", usd_per_hour=9.0, replicas=2)
    fleet = Fleet(steps)
    fleet.state.apply(PoolAdded(t_s=50.0, spec=other))
    fleet.fill()
    for number, due_s in enumerate(waiting):
        fleet.submit(f"waits-{number}")
        fleet.place(step(f"waits-{number}", 0, deadline_s=due_s))
    one = step("runs-0" if begun else "new", 1 if begun else 0, deadline_s, on_miss)
    view = fleet.state.view(one, 101.0)
    answer = OURS.by_arrays(one, view)
    assert OURS(one, view) == answer
    # Plain numbers alone can be written into the log.
    assert msgspec.json.encode(OURS(one, view))
    assert OURS.by_few(one, fleet.state.few(one, one.call, 101.0)) == answer  # type: ignore[arg-type]


@given(st.permutations(range(6)), st.integers(0, 6))
def test_nothing_is_left_of_a_crowd_that_has_begun(order: list[int], cancelled: int) -> None:
    fleet = Fleet(steps=4)
    fleet.fill()
    fleet.crowd(6)
    for place, number in enumerate(order):
        if place < cancelled:
            fleet.finish(f"waits-{number}", 0)
        else:
            fleet.start(f"waits-{number}", 0)
    view = fleet.state.view(step("new", 0, deadline_s=200.0), 100.0)
    assert view.later_sum_s.tolist() == [0.0]
    assert view.crowded.tolist() == [0.0]
