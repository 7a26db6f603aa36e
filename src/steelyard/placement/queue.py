"""In which order do waiting steps start? Least slack first, without starvation."""

import heapq
import math

from steelyard.domain.task import Step

# A step without a deadline is ordered as if it were due this long after it came, so it is passed
# over by urgent steps for a while and never for ever.
_PATIENCE_S = 60.0


class StepQueue:
    """Waiting steps of one replica, most urgent first.

    The order is by latest start, `deadline - remaining work - service time`. All slacks shrink at
    the same rate, so the order of two steps never changes and a heap suffices. A latest start is a
    point in time: new steps get ever later ones, so none waits for ever.

    >>> queue = StepQueue()
    >>> def step(name, deadline_s):
    ...     from steelyard.domain.task import ToolCall
    ...     return Step(task_id=name, step_id=0, agent="a", name="s", call=ToolCall(tool="t"),
    ...                 deadline_s=deadline_s)
    >>> queue.push(step("late", 90.0), now_s=0.0, slack_s=80.0)
    >>> queue.push(step("soon", 20.0), now_s=1.0, slack_s=9.0)
    >>> queue.pop().task_id
    'soon'
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Step]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(
        self, step: Step, now_s: float, slack_s: float | None, key: float | None = None
    ) -> None:
        """Let a step wait.

        Args:
            step: The step.
            now_s: Time on the log's clock.
            slack_s: Its slack if it started now, `Decision.slack_at_start_s`: a wait that was
                predicted must not be taken off, or under a growing load later steps would seem
                ever more urgent than earlier ones. None without a deadline.
            key: Another place in the order, `Decision.queue_key`; None orders by latest start.
        """
        if key is None:
            key = now_s + (_PATIENCE_S if slack_s is None else slack_s)
        if math.isnan(key):
            key = math.inf
        heapq.heappush(self._heap, (key, self._pushed, step))
        self._pushed += 1

    def peek(self) -> Step:
        """Which step is the most urgent?

        Raises:
            IndexError: Nothing waits.
        """
        return self._heap[0][2]

    def pop(self) -> Step:
        """Take the most urgent step out.

        Raises:
            IndexError: Nothing waits.
        """
        return heapq.heappop(self._heap)[2]

    def remove(self, step: Step) -> bool:
        """Take a step out that is no longer wanted.

        Args:
            step: The step.

        Returns:
            Whether it was waiting.
        """
        for index, entry in enumerate(self._heap):
            if entry[2].key == step.key and entry[2].attempt == step.attempt:
                self._heap[index] = self._heap[-1]
                self._heap.pop()
                heapq.heapify(self._heap)
                return True
        return False
