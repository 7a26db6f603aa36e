"""How much time has a search left, and what may still be done when it is over?"""

import time
from collections.abc import Callable

GRACE_FRAC = 0.1
LEAST_GRACE_S = 1.0


class TimeUp(Exception):  # noqa: N818 - control flow inside the search, never an answer to a caller
    """The search must come back with what it has."""


class Deadline:
    """Two times: when nothing new is begun, and when what runs is given up.

    Between the two a search that has no good fleet yet may look for its first one.
    """

    def __init__(self, limit_s: float, now: Callable[[], float] = time.perf_counter) -> None:
        """Start counting.

        Args:
            limit_s: Seconds until nothing new is begun.
            now: The clock, in seconds.
        """
        self._now = now
        self._soft_s = now() + limit_s
        self._hard_s = self._soft_s + max(GRACE_FRAC * limit_s, LEAST_GRACE_S)

    def left_s(self) -> float:
        """Seconds until nothing new is begun; 0 or more."""
        return max(0.0, self._soft_s - self._now())

    def late(self) -> bool:
        """May nothing new be begun?"""
        return self._now() > self._soft_s

    def grace_s(self) -> float:
        """Seconds that what runs now still has.

        Raises:
            TimeUp: None.
        """
        left_s = self._hard_s - self._now()
        if left_s <= 0.0:
            raise TimeUp
        return left_s
