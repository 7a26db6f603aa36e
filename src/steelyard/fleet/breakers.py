"""Circuit breakers: what fails again and again gets nothing for a while, then one step to try it.

A step that is placed where the pause is over is the probe: it shuts the breaker behind it, until it
has ended. If it went well the breaker is closed; if the fault is still there the next pause is
twice as long; if it says nothing of that (its client left) the next step is the probe. One that
runs on gets another one beside it after 5 s, since what is broken mostly fails fast, and a long
answer must not keep a pool shut that works (ADR 36).
"""

import math
from array import array

import msgspec

from steelyard.fleet.prefix import Place
from steelyard.fleet.replica_books import window
from steelyard.perf.predict import BoolArray

# Failures in a row after which a circuit breaker opens, and for how long at first.
_FAILURES = 3
_OPEN_S = 5.0
_MAX_OPEN_S = 60.0
# A probe that has not ended after so long gets another one beside it.
_PROBE_S = 5.0
_NOBODY = -1


class _Streak(msgspec.Struct):
    """Failures of one replica since it last worked."""

    failures: int = 0
    failed_s: float = -math.inf
    open_until_s: float = -math.inf


class Breakers:
    """One breaker per pool, in the fleet's order, and one per replica that fails.

    A broken replica fails fast, so it looks idle and draws work: it is left out while others of
    its pool are there. Failures of one replica alone say nothing against its pool.
    """

    def __init__(self) -> None:
        self._failures: list[int] = []
        self._failed_s: list[float] = []
        self._failed_last: list[int] = []
        self._open_until_s = array("d")
        self._all_closed: list[bool] = []
        # Whether any pool has failures since it last worked, so that its breaker may be open.
        self._some_failed = False
        self._streaks: dict[Place, _Streak] = {}

    def add(self) -> None:
        """One more pool."""
        self._failures.append(0)
        self._failed_s.append(-math.inf)
        self._failed_last.append(_NOBODY)
        # New ones, never longer ones: views share them.
        self._open_until_s = self._open_until_s + array("d", [-math.inf])
        self._all_closed = [*self._all_closed, True]

    def closed(self, now_s: float) -> list[bool]:
        """Which breakers of pools let steps through?"""
        if self._some_failed:
            return [until_s <= now_s for until_s in self._open_until_s]
        return self._all_closed

    def open_until_s(self, pool: int) -> float:
        """Until when does a pool's breaker let no more through? Minus infinity where closed."""
        return self._open_until_s[pool]

    def closed_array(self, now_s: float) -> BoolArray:
        """The same for NumPy."""
        flags: BoolArray = window(self._open_until_s) <= now_s
        return flags

    def trusted(self, up: bytearray, starts: list[int], now_s: float) -> bytearray:
        """Which replicas are up, and have not failed again and again while others work?

        Args:
            up: 1 for replicas that are up, pool after pool.
            starts: Replicas of pool p are `starts[p] .. starts[p + 1]`.
            now_s: Time on the log's clock.

        Returns:
            The same as `up`, and itself where no replica is left out.
        """
        if not self._streaks:
            return up
        left_out = [place for place, one in self._streaks.items() if one.open_until_s > now_s]
        shown = bytearray(up)
        for pool, replica in left_out:
            shown[starts[pool] + replica] = 0
        for pool in {one[0] for one in left_out}:
            mine = slice(starts[pool], starts[pool + 1])
            if not any(shown[mine]):
                shown[mine] = up[mine]
        return shown if left_out else up

    def placed(self, place: Place, t_s: float) -> None:
        """A step is placed; where the pause of a breaker is over, it is the probe.

        Args:
            place: Pool and replica.
            t_s: When.
        """
        if self._some_failed and self._failures[place[0]] >= _FAILURES:
            self._open_until_s[place[0]] = _shut_s(self._open_until_s[place[0]], t_s)
        streak = self._streaks.get(place) if self._streaks else None
        if streak is not None and streak.failures >= _FAILURES:
            streak.open_until_s = _shut_s(streak.open_until_s, t_s)

    def said_nothing(self, place: Place, placed_s: float, t_s: float) -> None:
        """An attempt neither went well nor failed by the pool's fault; the next may be the probe.

        Args:
            place: Pool and replica.
            placed_s: When it had been placed: a breaker that it shut is known by that.
            t_s: When it ended.
        """
        if self._open_until_s[place[0]] == placed_s + _PROBE_S:
            self._open_until_s[place[0]] = t_s
        streak = self._streaks.get(place)
        if streak is not None and streak.open_until_s == placed_s + _PROBE_S:
            streak.open_until_s = t_s

    def failed(self, place: Place, started_s: float, t_s: float, *, alone: bool) -> None:
        """An attempt failed by the pool's fault; what ran when a fault showed fails by the same.

        Args:
            place: Pool and replica.
            started_s: When the attempt had started.
            t_s: When it failed.
            alone: Whether no other replica of the pool is up.
        """
        pool, replica = place
        streak = self._streaks.setdefault(place, _Streak())
        if started_s > streak.failed_s:
            streak.failed_s = t_s
            streak.failures += 1
            streak.open_until_s = _open_until_s(streak.failures, t_s)
        if started_s <= self._failed_s[pool]:
            return
        self._failed_s[pool] = t_s
        if self._failed_last[pool] == replica and not alone:
            return
        self._failed_last[pool] = replica
        self._failures[pool] += 1
        self._some_failed = True
        self._open_until_s[pool] = _open_until_s(self._failures[pool], t_s)

    def works(self, place: Place) -> None:
        """The replica works, and so its pool does."""
        if self._streaks:
            self._streaks.pop(place, None)
        self._close(place[0])

    def forget(self, pool: int) -> None:
        """Forget all failures of a pool and of its replicas."""
        self.shrink(pool, 0)
        self._close(pool)

    def _close(self, pool: int) -> None:
        if self._failures[pool]:
            self._failures[pool] = 0
            self._failed_last[pool] = _NOBODY
            self._open_until_s[pool] = -math.inf
            self._some_failed = any(self._failures)

    def shrink(self, pool: int, replicas: int) -> None:
        """Forget replicas of a pool beyond so many."""
        for place in [one for one in self._streaks if one[0] == pool and one[1] >= replicas]:
            del self._streaks[place]


def _open_until_s(failures: int, t_s: float) -> float:
    """When does a breaker close after so many failures in a row?"""
    over = failures - _FAILURES
    if over < 0:
        return -math.inf
    # The exponent is bounded, too: an outage may fail thousands of attempts in a row.
    return t_s + min(_MAX_OPEN_S, _OPEN_S * 2.0 ** min(over, 16))


def _shut_s(open_until_s: float, t_s: float) -> float:
    """Until when is a breaker that has opened shut, after a step was placed?"""
    return t_s + _PROBE_S if open_until_s <= t_s else open_until_s
