"""The virtual clock: what is due, and when."""

import heapq
from collections.abc import Callable

from steelyard.errors import SteelyardBugError

Action = Callable[[float], None]


class Agenda:
    """Actions in order of time, those of one moment in the order in which they were entered.

    >>> done = []
    >>> agenda = Agenda()
    >>> agenda.at(2.0, lambda now_s: done.append(now_s))
    >>> agenda.at(1.0, lambda now_s: done.append(now_s))
    >>> while agenda:
    ...     agenda.run_next()
    >>> done
    [1.0, 2.0]
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._entered = 0
        self.now_s = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, t_s: float, action: Action) -> None:
        """Enter something to be done.

        Args:
            t_s: When, in simulated seconds.
            action: What; it is told the time.

        Raises:
            SteelyardBugError: The time is past.
        """
        if t_s < self.now_s:
            raise SteelyardBugError(f"action at {t_s} s was entered at {self.now_s} s, too late")
        heapq.heappush(self._heap, (t_s, self._entered, action))
        self._entered += 1

    def run_next(self) -> None:
        """Let the clock jump to the next action, and do it.

        Raises:
            IndexError: Nothing is due.
        """
        self.now_s, _, action = heapq.heappop(self._heap)
        action(self.now_s)
