import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step, ToolCall
from steelyard.placement.queue import LATE_SHARE, PATIENCE_S, StepQueue, kept_slack_s


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
    begun = msgspec.structs.replace(step("begun"), step_id=3, parents=(2,))
    queue = StepQueue()
    queue.push(begun, placed(50.0, wait_s=60.0), now_s=0.0)
    for number in range(3):
        queue.push(step(f"new {number}"), placed(9.0), now_s=0.0)
    assert queue.pop(0.0).task_id == "new 0"
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    assert names(queue, 0.0, 4) == ["begun", "new 1", "new 2", "late"]


def test_a_step_is_not_taken_for_a_begun_task_s_because_earlier_ones_were_refused() -> None:
    queue = StepQueue()
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    queue.push(step("new"), placed(9.0), now_s=0.0)
    queue.push(msgspec.structs.replace(step("again"), step_id=3), placed(50.0), now_s=0.0)
    assert names(queue, 0.0, 3) == ["new", "again", "late"]


def begins(name: str, now_s: float, whole_s: float) -> Step:
    """The first step of a task that has so long in all."""
    return msgspec.structs.replace(step(name), deadline_s=now_s + whole_s)


def test_a_lasting_overload_lets_no_task_begin_that_has_lost_its_spare_slack() -> None:
    # Of ten seconds one is the first step's, three are the others', and six are slack.
    for late_for_s, first in ((9.0, "older"), (11.0, "newer")):
        queue = StepQueue()
        queue.push(step("late"), placed(-1.0), now_s=0.0)
        assert queue.pop(0.0).task_id == "late"
        queue.push(step("late too"), placed(-1.0), now_s=0.0)
        queue.push(begins("older", late_for_s - 4.0, 10.0), placed(6.0), late_for_s - 4.0)
        queue.push(begins("newer", late_for_s - 1.0, 10.0), placed(6.0), late_for_s - 1.0)
        queue.peek(0.0)
        assert queue.peek(late_for_s).task_id == first


def test_an_overload_that_nobody_is_late_in_any_more_has_not_lasted() -> None:
    queue = StepQueue()
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    assert queue.peek(0.0).task_id == "late"
    assert queue.remove(step("late"))
    queue.push(step("late later"), placed(-1.0), now_s=10.0)
    queue.push(begins("older", 8.0, 10.0), placed(6.0), 8.0)
    queue.push(begins("newer", 11.0, 10.0), placed(6.0), 11.0)
    assert queue.peek(12.0).task_id == "older"


# Slack at the start, and what remains after the first step.
Begun = st.tuples(st.floats(-1.0, 20.0), st.floats(0.0, 40.0))


@given(
    new=st.lists(Begun, max_size=30),
    gaps_s=st.lists(st.floats(0.0, 1.0), min_size=60, max_size=60),
    starts=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_the_order_changes_for_no_task_that_has_longer_than_anybody_was_late(
    new: list[tuple[float, float]], gaps_s: list[float], starts: list[bool]
) -> None:
    """All comes and goes within sixty seconds, and each task has more."""
    lasting, usual, now_s = StepQueue(), StepQueue(), 0.0
    for number, (slack_s, _) in enumerate(new):
        now_s += gaps_s[number]
        one = begins(str(number), now_s, 61.0)
        lasting.push(one, placed(slack_s), now_s)
        usual.push(msgspec.structs.replace(one, deadline_s=None), placed(slack_s), now_s)
        if starts[number]:
            assert lasting.pop(now_s).task_id == usual.pop(now_s).task_id
    while len(usual):
        now_s += gaps_s[30 + len(usual) % 30]
        assert lasting.pop(now_s).task_id == usual.pop(now_s).task_id


@given(
    slack_s=st.floats(0.1, 20.0),
    remaining_s=st.floats(0.0, 40.0),
    begun=st.booleans(),
)
def test_no_first_step_waits_for_ever_in_a_lasting_overload(
    slack_s: float, remaining_s: float, begun: bool
) -> None:
    queue, now_s = StepQueue(), 100.0
    queue.push(step("late"), placed(-1.0), now_s=0.0)
    queue.push(step("late too"), placed(-1.0), now_s=0.0)
    assert queue.pop(0.0).task_id == "late"
    whole_s = slack_s + 1.0 + remaining_s
    queue.push(begins("patient", now_s, whole_s), placed(slack_s), now_s)
    past = 0
    while True:
        now_s += 0.5
        other = begins(f"at {now_s}", now_s, whole_s)
        if begun:
            other = msgspec.structs.replace(other, step_id=1, parents=(0,))
        queue.push(other, placed(slack_s), now_s)
        if queue.pop(now_s).task_id == "patient":
            break
        past += now_s > 100.0 + slack_s
        # Another that was late before it may have the first of the late ones' turns.
        assert past <= 2 * LATE_SHARE


@given(slack_s=st.floats(0.0, 100.0), remaining_s=st.floats(0.0, 100.0))
def test_slack_that_is_kept_is_no_more_than_half_and_none_for_a_lone_step(
    slack_s: float, remaining_s: float
) -> None:
    assert 0.0 <= kept_slack_s(slack_s, remaining_s) <= min(0.5 * slack_s, remaining_s)
    assert kept_slack_s(slack_s, 0.0) == 0.0


def test_steps_that_will_be_late_are_not_counted_among_those_that_may_be_in_time() -> None:
    queue = StepQueue()
    for number in range(4):
        queue.push(step(f"soon {number}"), placed(1.0 + number), now_s=0.0)
    assert queue.in_time == len(queue) == 4
    queue.peek(2.5)
    assert (queue.in_time, len(queue)) == (2, 4)
    assert queue.remove(step("soon 0"))
    assert queue.remove(step("soon 3"))
    assert (queue.in_time, len(queue)) == (1, 2)
    assert names(queue, 2.5, 2) == ["soon 2", "soon 1"]
    assert queue.in_time == len(queue) == 0


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
