"""What was rented of a pool, when, and at what price? A fold of the events that say so."""

import math
from bisect import bisect_right

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR, rental_usd


class PoolRent:
    """The rented replicas of one pool over time, and their price.

    From the pool's first event on, each event sets a level that holds until the next one.

    >>> from steelyard.domain.pool import PoolSpec
    >>> spec = PoolSpec(name="p", provider="", region="", arch="arm64", hardware="arm",
    ...     offering="", usd_per_hour=1.5, replicas=2)
    >>> rent = PoolRent()
    >>> rent.set_spec(0.0, spec)
    >>> rent.set_rented(1800.0, 1, rented=False)
    >>> rent.usd(0.0, 3600.0), rent.replica_hours(0.0, 3600.0)
    (2.25, 1.5)
    """

    def __init__(self) -> None:
        self._t_s: list[float] = []
        self._levels: list[tuple[float, int]] = []
        self._released: set[int] = set()
        # Of them, those that the pool has now.
        self._away = 0
        self._usd_per_hour = 0.0
        self._replicas = 0

    def set_spec(self, t_s: float, spec: PoolSpec) -> None:
        """Note the pool's price and number of replicas from a time on.

        Args:
            t_s: On the log's clock.
            spec: The pool.
        """
        self._usd_per_hour, self._replicas = spec.usd_per_hour, spec.replicas
        self._away = sum(replica < self._replicas for replica in self._released)
        self._note(t_s)

    def end(self, t_s: float) -> None:
        """Note that the pool has left the fleet, and is not paid for until it comes back.

        Args:
            t_s: On the log's clock.
        """
        self._replicas = self._away = 0
        self._released.clear()
        self._note(t_s)

    def set_rented(self, t_s: float, replica: int, *, rented: bool) -> None:
        """Note that a replica is paid for from a time on, or is not.

        Args:
            t_s: On the log's clock.
            replica: Its index.
            rented: Whether it is paid for.
        """
        if rented == (replica not in self._released):
            return
        if rented:
            self._released.discard(replica)
        else:
            self._released.add(replica)
        if replica < self._replicas:
            self._away += -1 if rented else 1
        self._note(t_s)

    def _note(self, t_s: float) -> None:
        level = (self._usd_per_hour, self._replicas - self._away)
        # Clocks of several machines may disagree a little; the log's order counts.
        at_s = max(t_s, self._t_s[-1]) if self._t_s else t_s
        if self._t_s and at_s == self._t_s[-1]:
            self._levels[-1] = level
        elif not self._levels or level != self._levels[-1]:
            self._t_s.append(at_s)
            self._levels.append(level)

    def usd(self, start_s: float, end_s: float) -> float:
        """What was paid from one time to another, in USD?"""
        return math.fsum(
            rental_usd(price * replicas, duration_s)
            for (price, replicas), duration_s in self._spans(start_s, end_s)
        )

    def replica_hours(self, start_s: float, end_s: float) -> float:
        """How many hours of a replica were rented from one time to another?"""
        return self.replica_s(start_s, end_s) / SECONDS_PER_HOUR

    def replica_s(self, start_s: float, end_s: float) -> float:
        """The same in seconds."""
        return math.fsum(n * duration_s for (_, n), duration_s in self._spans(start_s, end_s))

    def _spans(self, start_s: float, end_s: float) -> list[tuple[tuple[float, int], float]]:
        """Levels between two times, and the seconds for which each held."""
        found: list[tuple[tuple[float, int], float]] = []
        for at in range(max(0, bisect_right(self._t_s, start_s) - 1), len(self._t_s)):
            from_s = max(start_s, self._t_s[at])
            if from_s >= end_s:
                break
            until_s = self._t_s[at + 1] if at + 1 < len(self._t_s) else end_s
            found.append((self._levels[at], min(until_s, end_s) - from_s))
        return found
