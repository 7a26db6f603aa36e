"""In which order do waiting steps start? Least slack first among those that can be in time."""

import heapq
import math
from collections import deque

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step
from steelyard.errors import SteelyardBugError

# A step without a deadline is ordered as if it were due this long after it came, so it is passed
# over by urgent steps for a while and never for ever.
PATIENCE_S = 60.0
# A priority of 10 takes all of that patience, one of -10 doubles it.
_S_PER_PRIORITY = 6.0
# One start in so many is a late step's while others wait, so that none of them waits for ever.
LATE_SHARE = 32
_MANY_GONE = 64


class _Waiting(msgspec.Struct, gc=False):
    """A step that waits; `step` is None once it has left."""

    step: Step | None
    late_after_s: float = math.inf
    # Where it begins a task: how long that has in all, and until when there is slack to spare.
    whole_s: float = math.inf
    spare_until_s: float = math.inf
    late: bool = False


# Key, number in order of coming, step.
_Heap = list[tuple[float, int, _Waiting]]


class StepQueue:
    """Waiting steps of one replica, most urgent first.

    The order is by latest start, `deadline - remaining work - service time`. All slacks shrink at
    the same rate, so the order of two steps never changes and a heap suffices. A latest start is a
    point in time: new steps get ever later ones, so none waits for ever.

    Under overload that order alone would be the worst one: what is started is always what will
    just miss its deadline (the domino effect of earliest deadline first; Baruah and Haritsa, IEEE
    Transactions on Computers 46(9), 1997). So some give way (ADR 23):

    - Steps that cannot be in time any more start when nobody else waits, and besides in one start
      of 32, in the order in which that was noticed.
    - First steps of tasks that could not be in time behind those in front of them when they came
      start after all others that can be.
    - As long as there are steps that cannot be in time any more, tasks that have begun go before
      new ones: what was done of them would be lost.
    - Where such steps have waited without a break for longer than a new task's whole time, that
      task gives way, too, once it has lost the slack that it should begin with (ADR 38).

    Where a policy orders by a key of its own, that alone counts.

    >>> from steelyard.domain.task import ToolCall
    >>> def step(name):
    ...     return Step(task_id=name, step_id=0, agent="a", name="s", call=ToolCall(tool="t"))
    >>> def placed(slack_s):
    ...     return Decision(pool="p", replica=0, predicted_wait_s=0.0, predicted_ttft_s=0.0,
    ...         predicted_finish_s=1.0, predicted_cached_tokens=0, predicted_output_tokens=0.0,
    ...         predicted_cost_usd=0.0, bid_usd_per_hour=0.0, slack_s=slack_s, policy="", reason="",
    ...         verdicts=())
    >>> queue = StepQueue()
    >>> for name, slack_s in (("relaxed", 80.0), ("urgent", 9.0), ("hopeless", -1.0)):
    ...     queue.push(step(name), placed(slack_s), now_s=0.0)
    >>> [queue.pop(now_s=1.0).task_id for _ in range(3)]
    ['urgent', 'relaxed', 'hopeless']
    """

    def __init__(self) -> None:
        # Of tasks that have begun, of new ones, and of new ones that give way.
        self._classes: tuple[_Heap, _Heap, _Heap] = ([], [], [])
        self._late: deque[_Waiting] = deque()
        self._known: dict[tuple[str, int, int], _Waiting] = {}
        self._pushed = 0
        self._since_late = 0
        self._late_since_s = math.inf
        self._late_ones = 0
        self._gone = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def in_time(self) -> int:
        """How many wait that were not seen to be late?"""
        return len(self._known) - self._late_ones

    def push(self, step: Step, decision: Decision, now_s: float) -> None:
        """Let a step wait.

        Args:
            step: The step.
            decision: Its placement. It is ordered by the slack that it would have if it started
                now: a wait that was predicted must not be taken off, or under a growing load later
                steps would seem ever more urgent than earlier ones.
            now_s: Time on the log's clock.
        """
        slack_s, waiting = decision.slack_at_start_s, _Waiting(step)
        key = decision.queue_key
        if key is None:
            key = now_s + (PATIENCE_S if slack_s is None else slack_s)
            key -= _S_PER_PRIORITY * step.priority
            if slack_s is not None:
                waiting.late_after_s = now_s + slack_s + decision.grace_s
                if step.begins_task and step.deadline_s is not None:
                    waiting.whole_s = step.deadline_s - now_s
                    service_s = decision.predicted_finish_s - decision.predicted_wait_s
                    spare_s = kept_slack_s(slack_s, waiting.whole_s - service_s - slack_s)
                    waiting.spare_until_s = now_s + slack_s - spare_s
        if math.isnan(key):
            key = math.inf
        self._known[(step.task_id, step.step_id, step.attempt)] = waiting
        heapq.heappush(self._classes[_class_of(step, decision)], (key, self._pushed, waiting))
        self._pushed += 1

    def peek(self, now_s: float) -> Step:
        """Which step is the next one to start?

        Args:
            now_s: Time on the log's clock.

        Raises:
            IndexError: Nothing waits.
        """
        return _step(self._next(now_s)[0])

    def pop(self, now_s: float) -> Step:
        """Take the next step out.

        Args:
            now_s: Time on the log's clock.

        Raises:
            IndexError: Nothing waits.
        """
        waiting, heap = self._next(now_s)
        if heap is None:
            self._late.popleft()
            self._late_ones -= 1
            self._since_late = 0
        else:
            heapq.heappop(heap)
            self._since_late += bool(self._late)
        step = _step(waiting)
        del self._known[(step.task_id, step.step_id, step.attempt)]
        return step

    def remove(self, step: Step) -> bool:
        """Take a step out that is no longer wanted.

        Args:
            step: The step.

        Returns:
            Whether it was waiting.
        """
        waiting = self._known.pop((step.task_id, step.step_id, step.attempt), None)
        if waiting is None:
            return False
        # Its place is passed over when its turn comes: no search in the middle of a crowd.
        waiting.step = None
        self._late_ones -= waiting.late
        self._gone += 1
        if self._gone > _MANY_GONE + len(self._known):
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Forget the places of those that have left."""
        self._gone = 0
        for heap in self._classes:
            heap[:] = [one for one in heap if one[2].step is not None]
            heapq.heapify(heap)
        self._late = deque(one for one in self._late if one.step is not None)

    def _next(self, now_s: float) -> tuple[_Waiting, _Heap | None]:
        """The next one to start, and the heap that it heads; None for the late ones."""
        while self._late and self._late[0].step is None:
            self._late.popleft()
        for heap in self._classes:
            while heap and (heap[0][2].step is None or self._is_given_up(heap[0][2], now_s)):
                waiting = heapq.heappop(heap)[2]
                if waiting.step is not None:
                    if not self._late:
                        self._late_since_s = now_s
                    self._late.append(waiting)
                    self._late_ones += 1
                    waiting.late = True
        if self._late and self._since_late >= LATE_SHARE - 1:
            return self._late[0], None
        begun, new, giving_way = self._classes
        first = begun or new or giving_way
        if begun and new and not self._late and new[0][:2] < begun[0][:2]:
            first = new
        return (first[0][2], first) if first else (self._late[0], None)

    def _is_given_up(self, waiting: _Waiting, now_s: float) -> bool:
        """Does it let all others pass from now on?"""
        if waiting.late_after_s < now_s:
            return True
        if waiting.spare_until_s >= now_s or not self._late:
            return False
        return now_s - self._late_since_s > waiting.whole_s


def kept_slack_s(slack_s: float, remaining_s: float) -> float:
    """How much slack must be left when a task begins, where far more come than can be served?

    As much as work remains, so that later steps may take twice their time; where tasks have less,
    half of what they came with. The least slack is no safe order there: what begins at its latest
    start is late by the least delay of a later step, and another could have begun in its place.

    Args:
        slack_s: Slack that it would have if it began when it came.
        remaining_s: Expected seconds from the end of its first step to its own end.

    Returns:
        Seconds; 0 for tasks of one step.

    >>> kept_slack_s(8.0, 3.0), kept_slack_s(1.0, 3.0), kept_slack_s(8.0, 0.0)
    (3.0, 0.5, 0.0)
    """
    return max(0.0, min(0.5 * slack_s, remaining_s))


def _class_of(step: Step, decision: Decision) -> int:
    if not step.begins_task:
        return 0
    return 2 if decision.gives_way(step) else 1


def _step(waiting: _Waiting) -> Step:
    if waiting.step is None:
        raise SteelyardBugError("a step that has left heads its queue")
    return waiting.step
