"""Circuit breakers: a pool that fails again and again gets nothing for a while."""

import math
from array import array

from steelyard.fleet.replica_books import window
from steelyard.perf.predict import BoolArray

# Failures in a row after which a pool's circuit breaker opens, and for how long at first.
_FAILURES = 3
_OPEN_S = 5.0
_MAX_OPEN_S = 60.0


class Breakers:
    """One breaker per pool, in the fleet's order."""

    def __init__(self) -> None:
        self._failures: list[int] = []
        self._failed_s: list[float] = []
        self._open_until_s = array("d")
        self._all_closed: list[bool] = []
        # Whether any pool has failures since it last worked, so that its breaker may be open.
        self._some_failed = False

    def add(self) -> None:
        """One more pool."""
        self._failures.append(0)
        self._failed_s.append(-math.inf)
        # New ones, never longer ones: views share them.
        self._open_until_s = self._open_until_s + array("d", [-math.inf])
        self._all_closed = [*self._all_closed, True]

    def closed(self, now_s: float) -> list[bool]:
        """Which breakers let steps through?"""
        if self._some_failed:
            return [until_s <= now_s for until_s in self._open_until_s]
        return self._all_closed

    def closed_array(self, now_s: float) -> BoolArray:
        """The same for NumPy."""
        flags: BoolArray = window(self._open_until_s) <= now_s
        return flags

    def failed(self, pool: int, started_s: float, t_s: float) -> None:
        """An attempt failed by the pool's fault; what ran when a fault showed fails by the same.

        Args:
            pool: The pool.
            started_s: When the attempt had started.
            t_s: When it failed.
        """
        if started_s <= self._failed_s[pool]:
            return
        self._failed_s[pool] = t_s
        self._failures[pool] += 1
        self._some_failed = True
        over = self._failures[pool] - _FAILURES
        if over >= 0:
            # The exponent is bounded, too: an outage may fail thousands of attempts in a row.
            open_s = _OPEN_S * 2.0 ** min(over, 16)
            self._open_until_s[pool] = t_s + min(_MAX_OPEN_S, open_s)

    def close(self, pool: int) -> None:
        """The pool works."""
        if self._failures[pool]:
            self._failures[pool] = 0
            self._open_until_s[pool] = -math.inf
            self._some_failed = any(self._failures)
