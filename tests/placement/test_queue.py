import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step, ToolCall
from steelyard.placement.queue import LATE_SHARE, PATIENCE_S, StepQueue


def step(name: str, attempt: int = 0, priority: int = 0) -> Step:
    call = ToolCall(tool="t")
    return Step(
        task_id=name,
        step_id=0,
        agent="a",
        name="s",
        call=call,
        attempt=attempt,
        priority=priority,
    )


def placed(
    slack_s: float | None,
    *,
    wait_s: float = 0.0,
    grace_s: float = 0.0,
    queue_key: float | None = None,
) -> Decision:
    """A decision with so much slack if the step starts now, and so long a wait before it."""
    return Decision(
        pool="p",
        replica=0,
        predicted_wait_s=wait_s,
        predicted_ttft_s=0.1,
        predicted_finish_s=1.0 + wait_s,
        predicted_cached_tokens=0,
        predicted_output_tokens=0.0,
        predicted_cost_usd=0.0,
        bid_usd_per_hour=0.0,
        slack_s=None if slack_s is None else slack_s - wait_s,
        grace_s=grace_s,
        queue_key=queue_key,
        policy="test",
        reason="",
        verdicts=(),
    )


def names(queue: StepQueue, now_s: float, count: int) -> list[str]:
    return [queue.pop(now_s).task_id for _ in range(count)]


@given(slacks_s=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20))
def test_steps_that_can_be_in_time_leave_by_least_slack_and_then_by_arrival(
    slacks_s: list[float],
) -> None:
    queue = StepQueue()
    for number, slack_s in enumerate(slacks_s):
        queue.push(step(str(number)), placed(slack_s), now_s=5.0)
    left: list[int] = []
    while len(queue):
        peeked = queue.peek(5.0)
        assert queue.pop(5.0) == peeked
        left.append(int(peeked.task_id))
    # Compared as the queue does: as latest starts, in which tiny differences of slack vanish.
    assert left == sorted(range(len(slacks_s)), key=lambda number: 5.0 + slacks_s[number])


@given(
    slacks_s=st.lists(
        st.tuples(st.none() | st.floats(-9.0, 9.0), st.floats(0.0, 9.0)), max_size=40
    ),
    gaps_s=st.lists(st.floats(0.0, 2.0), min_size=80, max_size=80),
    gone=st.sets(st.integers(0, 39)),
)
def test_each_step_leaves_once_and_none_is_started_late_while_another_can_be_in_time(
    slacks_s: list[tuple[float | None, float]], gaps_s: list[float], gone: set[int]
) -> None:
    queue, now_s = StepQueue(), 0.0
    waiting: dict[str, float] = {}
    for number, (slack_s, wait_s) in enumerate(slacks_s):
        now_s += gaps_s[number]
        queue.push(step(str(number)), placed(slack_s, wait_s=wait_s), now_s)
        waiting[str(number)] = float("inf") if slack_s is None else now_s + slack_s
        if number in gone:
            assert queue.remove(step(str(number)))
            del waiting[str(number)]
    turn = 0
    while len(queue):
        assert len(queue) == len(waiting)
        now_s += gaps_s[40 + turn % 40]
        turn += 1
        chosen = queue.pop(now_s).task_id
        if waiting.pop(chosen) < now_s and turn < LATE_SHARE:
            assert all(latest_s < now_s for latest_s in waiting.values())
    assert not waiting


def test_under_overload_what_is_started_can_be_in_time() -> None:
    # Ten come for every one that starts, each with a second to do a tenth of a second's work.
    queue, started, in_time = StepQueue(), 0, 0
    for tick in range(1000):
        now_s = tick * 0.1
        for number in range(10):
            decision = placed(0.9, wait_s=0.1 * len(queue), grace_s=-0.02)
            queue.push(step(f"{tick}.{number}"), decision, now_s)
        chosen = queue.pop(now_s)
        started += 1
        in_time += now_s - int(chosen.task_id.split(".")[0]) * 0.1 <= 0.9
    assert in_time / started > 0.95


def test_a_step_that_is_late_is_not_passed_over_for_ever() -> None:
    queue = StepQueue()
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    left: list[str] = []
    for number in range(2 * LATE_SHARE):
        queue.push(step(f"urgent {number}"), placed(0.5), now_s=float(number))
        left.append(queue.pop(float(number)).task_id)
    assert left.index("late") == LATE_SHARE - 1


@given(slack_s=st.none() | st.floats(0.0, 1e4))
def test_no_step_waits_for_ever_behind_a_stream_of_urgent_ones(slack_s: float | None) -> None:
    queue = StepQueue()
    queue.push(step("patient"), placed(slack_s), now_s=0.0)
    bound_s = PATIENCE_S if slack_s is None else slack_s
    now_s, past = 0.0, 0
    while True:
        now_s += max(1.0, bound_s / 50)
        queue.push(step(f"urgent at {now_s}"), placed(0.5), now_s)
        if queue.pop(now_s).task_id == "patient":
            break
        past += now_s > bound_s + 1.0
        assert past <= LATE_SHARE


def test_a_step_behind_too_many_others_waits_for_those_that_can_be_in_time() -> None:
    queue = StepQueue()
    queue.push(step("behind"), placed(2.0, wait_s=3.0), now_s=0.0)
    queue.push(step("in time"), placed(4.0), now_s=0.0)
    queue.push(step("uncertain"), placed(2.5, wait_s=2.6, grace_s=0.2), now_s=0.0)
    queue.push(step("hopeless"), placed(-1.0), now_s=0.0)
    assert names(queue, 0.0, 4) == ["uncertain", "in time", "behind", "hopeless"]


def test_tasks_that_have_begun_go_first_as_long_as_somebody_is_late() -> None:
    begun = msgspec.structs.replace(step("begun"), step_id=3)
    queue = StepQueue()
    queue.push(begun, placed(50.0, wait_s=60.0), now_s=0.0)
    for number in range(3):
        queue.push(step(f"new {number}"), placed(9.0), now_s=0.0)
    assert queue.pop(0.0).task_id == "new 0"
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    assert names(queue, 0.0, 4) == ["begun", "new 1", "new 2", "late"]


def test_a_step_is_given_up_with_its_grace_and_not_before() -> None:
    for now_s, first in ((2.4, "graceful"), (2.6, "relaxed")):
        queue = StepQueue()
        queue.push(step("graceful"), placed(2.0, grace_s=0.5), now_s=0.0)
        queue.push(step("relaxed"), placed(50.0), now_s=0.0)
        assert queue.peek(now_s).task_id == first


def test_a_policy_with_its_own_order_keeps_it_however_late_steps_are() -> None:
    queue = StepQueue()
    for key in (3.0, 1.0, 2.0):
        queue.push(step(str(key)), placed(-5.0 * key, queue_key=key), now_s=0.0)
    assert names(queue, 100.0, 3) == ["1.0", "2.0", "3.0"]


def test_steps_without_deadlines_leave_in_the_order_of_arrival() -> None:
    queue = StepQueue()
    for number in range(5):
        queue.push(step(str(number)), placed(None), now_s=float(number))
    assert names(queue, 500.0, 5) == list("01234")


def test_a_priority_counts_as_slack_and_passes_nobody_for_ever() -> None:
    queue = StepQueue()
    queue.push(step("usual"), placed(None), now_s=0.0)
    queue.push(step("low", priority=-10), placed(None), now_s=0.0)
    queue.push(step("high", priority=10), placed(None), now_s=30.0)
    queue.push(step("high and later", priority=10), placed(None), now_s=70.0)
    queue.push(step("high and much later", priority=10), placed(None), now_s=130.0)
    told = names(queue, 130.0, 5)
    assert told == ["high", "usual", "high and later", "low", "high and much later"]


def test_a_removed_step_is_gone_and_the_others_keep_their_order() -> None:
    queue = StepQueue()
    for number in range(6):
        queue.push(step(str(number)), placed(float((number * 5) % 6)), now_s=0.0)
    assert queue.remove(step("5"))
    assert not queue.remove(step("5"))
    assert not queue.remove(step("3", attempt=1))
    assert len(queue) == 5
    assert names(queue, 0.0, 5) == ["0", "4", "3", "2", "1"]


def test_a_queue_that_most_have_left_still_serves_who_stayed() -> None:
    # Enough of them leave that their places are swept.
    queue = StepQueue()
    for number in range(1000):
        queue.push(step(str(number)), placed(1000.0 - number), now_s=0.0)
        if number not in {200, 500}:
            assert queue.remove(step(str(number)))
    assert len(queue) == 2
    assert names(queue, 0.0, 2) == ["500", "200"]


def test_an_empty_queue_has_nothing_to_give() -> None:
    with pytest.raises(IndexError):
        StepQueue().pop(0.0)
