"""How the replicas of a pool are rented: starts, preemption, numbers and prices over the day."""

import math

import msgspec

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.errors import ConfigError

_ROUNDING = 1e-9
# More than one in a second is a mistake in the unit, and would take for ever to simulate.
_MAX_PREEMPTIONS_PER_HOUR = 3600.0
# Beyond that only the compiled path gets anywhere.
_MAX_REPLICAS = 100_000


class Scaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the number of replicas follows the load, between bounds.

    Every `every_s` so many are wanted that running and waiting steps take `used_frac` of the
    places; the number falls only when for `hold_s` none of the looks wanted more. Both defaults
    are those of Kubernetes' HorizontalPodAutoscaler (read 2026-11-23).

    Attributes:
        min_replicas: Least number; at least 1, for a pool of none shows no load.
        max_replicas: Largest number.
        used_frac: Share of the places (concurrency cap, tool slots) that is to be in use.
        slack_s: Waiting steps that must start sooner than this to be in time count twice.
        every_s: Seconds between two looks.
        hold_s: Seconds for which a larger number is kept.
    """

    max_replicas: int
    min_replicas: int = 1
    used_frac: float = 0.7
    slack_s: float = 0.0
    every_s: float = 15.0
    hold_s: float = 300.0


class Renting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the replicas of a pool are rented. Left out, all are there from the start and stay.

    Tables by the hour go on from their beginning after the last entry.

    Attributes:
        start_s: Seconds from the order of a replica until it serves: boot and loading of models.
        preemptions_per_hour: How often a rented replica is taken back, in the mean; the time
            until then is exponential.
        notice_s: Seconds of warning. Meanwhile the replica takes no new steps.
        replicas_by_hour: Replicas wanted in each hour. They are ordered `start_s` ahead.
        scaling: How the number follows the load; `replicas_by_hour` is then the least number.
        usd_per_hour_by_hour: Price of a replica in each hour; empty for the pool's own.
        bid_usd_per_hour_by_hour: Bid price in each hour; empty for one that stays.
    """

    start_s: float = 0.0
    preemptions_per_hour: float = 0.0
    notice_s: float = 0.0
    replicas_by_hour: tuple[int, ...] = ()
    scaling: Scaling | None = None
    usd_per_hour_by_hour: tuple[float, ...] = ()
    bid_usd_per_hour_by_hour: tuple[float, ...] = ()

    @property
    def varies(self) -> bool:
        """Does the number of replicas change by plan?"""
        return bool(self.replicas_by_hour) or self.scaling is not None

    def most(self, replicas: int) -> int:
        """How many replicas can there be at once?

        Args:
            replicas: Number of the pool itself.
        """
        if not self.varies:
            return replicas
        return max((*self.replicas_by_hour, 0 if self.scaling is None else self.bounds()[1]))

    def bounds(self) -> tuple[int, int]:
        """Least and largest number that scaling by load may choose."""
        if self.scaling is None:
            return 0, 0
        return self.scaling.min_replicas, self.scaling.max_replicas

    def scheduled(self, hour: float) -> int:
        """How many replicas must be there or be started at a time? 0 without a table.

        Args:
            hour: Hours since midnight of the first day; the hours up to `start_s` later count too.

        >>> Renting(replicas_by_hour=(1, 5), start_s=600).scheduled(0.9)
        5
        """
        table = self.replicas_by_hour
        if not table:
            return 0
        last = math.floor(hour + self.start_s / SECONDS_PER_HOUR + _ROUNDING)
        ahead = range(math.floor(hour + _ROUNDING), last + 1)
        return max(table[at % len(table)] for at in ahead)

    def check(self, pool: str) -> None:
        """Refuse what makes no sense.

        Args:
            pool: The pool, for the message.

        Raises:
            ConfigError: A value is out of range.
        """
        for name in ("start_s", "preemptions_per_hour", "notice_s"):
            _require(pool, name, getattr(self, name), least=0.0)
        for name in ("replicas_by_hour", "usd_per_hour_by_hour", "bid_usd_per_hour_by_hour"):
            for value in getattr(self, name):
                _require(pool, name, value, least=0.0)
        if self.replicas_by_hour and not any(self.replicas_by_hour):
            raise ConfigError(f"renting of {pool}: replicas_by_hour is 0 all day; raise an hour")
        if self.preemptions_per_hour > _MAX_PREEMPTIONS_PER_HOUR:
            raise ConfigError(
                f"renting of {pool}: preemptions_per_hour is {self.preemptions_per_hour:g}; more "
                f"than {_MAX_PREEMPTIONS_PER_HOUR:g} are not simulated"
            )
        if self.most(0) > _MAX_REPLICAS:
            raise ConfigError(
                f"renting of {pool}: {self.most(0):,} replicas; at most {_MAX_REPLICAS:,} "
                "of a pool are simulated"
            )
        self._check_scaling(pool)

    def _check_scaling(self, pool: str) -> None:
        scaling = self.scaling
        if scaling is None:
            return
        _require(pool, "scaling.min_replicas", scaling.min_replicas, least=1.0)
        _require(pool, "scaling.slack_s", scaling.slack_s, least=0.0)
        _require(pool, "scaling.hold_s", scaling.hold_s, least=0.0)
        _require(pool, "scaling.every_s", scaling.every_s, least=0.1)
        _require(pool, "scaling.used_frac", scaling.used_frac, least=0.01)
        if scaling.max_replicas < max((scaling.min_replicas, *self.replicas_by_hour)):
            raise ConfigError(
                f"renting of {pool}: scaling.max_replicas {scaling.max_replicas} is below "
                "min_replicas or an entry of replicas_by_hour; raise it"
            )


def at_hour(table: tuple[float, ...], hour: float) -> float:
    """Entry of a table by the hour that goes on from its beginning.

    >>> at_hour((1.0, 2.0), 25.5)
    2.0
    """
    return table[math.floor(hour + _ROUNDING) % len(table)]


def _require(pool: str, name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(
            f"renting of {pool}: {name} is {value:g}; it must be a finite number of at least "
            f"{least:g}"
        )
