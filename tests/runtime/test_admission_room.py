"""Who is kept out of a queue that is full?"""

from typing import cast

import pytest

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step, ToolCall
from steelyard.errors import PoolOverloadedError
from steelyard.placement.queue import StepQueue
from steelyard.runtime import admission
from steelyard.runtime.admission import Admission
from steelyard.runtime.recorder import Recorder


def step(name: str, parents: tuple[int, ...] = ()) -> Step:
    return Step(
        task_id=name,
        step_id=len(parents),
        agent="a",
        name="s",
        call=ToolCall(tool="t"),
        parents=parents,
    )


def placed(slack_s: float) -> Decision:
    return Decision(
        pool="p",
        replica=0,
        predicted_wait_s=1.0,
        predicted_ttft_s=0.0,
        predicted_finish_s=2.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=0.0,
        predicted_cost_usd=0.0,
        bid_usd_per_hour=0.0,
        slack_s=slack_s,
        policy="",
        reason="",
        verdicts=(),
    )


def has_room(rooms: Admission, one: Step) -> bool:
    try:
        rooms.check_room(one, placed(1.0))
    except PoolOverloadedError:
        return False
    return True


def test_late_ones_cannot_fill_the_room_of_tasks_that_have_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_MAX_WAITING", 4)
    queue = StepQueue()
    # Nothing is recorded where only room is asked for.
    rooms = Admission(cast(Recorder, None))
    monkeypatch.setattr(rooms, "_queues", {("p", 0): queue})
    for number in range(100):
        new = step(f"late {number}")
        if not has_room(rooms, new):
            break
        queue.push(new, placed(-9.0), now_s=0.0)
        queue.peek(1.0)
    assert (len(queue), queue.in_time) == (8, 0)
    begun = [step(f"begun {number}", parents=(0,)) for number in range(5)]
    for one in begun[:4]:
        assert has_room(rooms, one)
        queue.push(one, placed(9.0), now_s=1.0)
    assert not has_room(rooms, begun[4])
