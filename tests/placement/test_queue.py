import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.task import Step, ToolCall
from steelyard.placement.queue import StepQueue


def step(name: str, attempt: int = 0) -> Step:
    call = ToolCall(tool="t")
    return Step(task_id=name, step_id=0, agent="a", name="s", call=call, attempt=attempt)


@given(slacks_s=st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=20))
def test_steps_leave_by_least_slack_and_then_by_arrival(slacks_s: list[float]) -> None:
    queue = StepQueue()
    for number, slack_s in enumerate(slacks_s):
        queue.push(step(str(number)), now_s=5.0, slack_s=slack_s)
    left: list[int] = []
    while len(queue):
        peeked = queue.peek()
        assert queue.pop() == peeked
        left.append(int(peeked.task_id))
    # Compared as the queue does: as latest starts, in which tiny differences of slack vanish.
    assert left == sorted(range(len(slacks_s)), key=lambda number: 5.0 + slacks_s[number])


@given(deadline_s=st.none() | st.floats(0.0, 1e4))
def test_no_step_waits_for_ever_behind_a_stream_of_urgent_ones(deadline_s: float | None) -> None:
    queue = StepQueue()
    queue.push(step("patient"), now_s=0.0, slack_s=deadline_s)
    bound_s = 60.0 if deadline_s is None else deadline_s
    now_s = 0.0
    while True:
        now_s += max(1.0, bound_s / 50)
        queue.push(step(f"urgent at {now_s}"), now_s, slack_s=0.5)
        if queue.pop().task_id == "patient":
            break
        assert now_s <= bound_s + 1.0


def test_steps_without_deadlines_leave_in_the_order_of_arrival() -> None:
    queue = StepQueue()
    for number in range(5):
        queue.push(step(str(number)), now_s=float(number), slack_s=None)
    assert [queue.pop().task_id for _ in range(5)] == list("01234")


def test_a_removed_step_is_gone_and_the_others_keep_their_order() -> None:
    queue = StepQueue()
    for number in range(6):
        queue.push(step(str(number)), now_s=0.0, slack_s=float((number * 5) % 6))
    assert queue.remove(step("5"))
    assert not queue.remove(step("5"))
    assert not queue.remove(step("3", attempt=1))
    assert [queue.pop().task_id for _ in range(5)] == ["0", "4", "3", "2", "1"]


def test_an_empty_queue_has_nothing_to_give() -> None:
    with pytest.raises(IndexError):
        StepQueue().pop()
