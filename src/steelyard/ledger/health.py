"""When did pools take no steps? Breakers and lost replicas over time, folded from the log."""

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from steelyard.domain.events import (
    AttemptFinished,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
)
from steelyard.fleet.state import FleetState

Condition = Literal["breaker open", "replicas down", "down"]


class HealthSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a pool was not whole.

    Attributes:
        pool: The pool.
        condition: `breaker open`: it got nothing after failures in a row; `replicas down`: some of
            its replicas were; `down`: all were.
        start_s: When it began, on the log's clock.
        end_s: When it ended; infinite if the log ends before.
    """

    pool: str
    condition: Condition
    start_s: float
    end_s: float


class Health:
    """The fold, complete after every event applied.

    The log of several gateways shows what one that saw everything would have done: each has
    breakers of its own (ADR 27).
    """

    def __init__(self) -> None:
        self._state = FleetState()
        self._replicas: dict[str, int] = {}
        self._changes: dict[str, list[tuple[float, int, float]]] = {}

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Health":
        """The health of a whole log.

        Args:
            events: The log, in order.
        """
        health = cls()
        for event in events:
            health.apply(event)
        return health

    def apply(self, event: Event) -> None:
        """Take one event.

        Args:
            event: The next event of the log.
        """
        self._state.apply(event)
        if isinstance(event, PoolAdded):
            self._replicas[event.spec.name] = event.spec.replicas
        if isinstance(event, AttemptFinished | ReplicaChanged | PoolAdded | PoolRemoved):
            for pool in self._replicas:
                self._note(pool, event.t_s)

    def _note(self, pool: str, t_s: float) -> None:
        now = (self._state.replicas_up(pool), self._state.open_until_s(pool))
        changes = self._changes.setdefault(pool, [])
        if not changes or changes[-1][1:] != now:
            changes.append((t_s, *now))

    def spans(self) -> tuple[HealthSpan, ...]:
        """When were pools not whole, by pool and time?"""
        found: list[HealthSpan] = []
        for pool, changes in sorted(self._changes.items()):
            ends_s = [one[0] for one in changes[1:]] + [math.inf]
            for (start_s, up, open_until_s), end_s in zip(changes, ends_s, strict=True):
                condition = self._condition(pool, up)
                if condition is not None:
                    found.append(_span(pool, condition, start_s, end_s))
                if open_until_s > start_s:
                    # A breaker that is not closed by a success lets one step try at its time.
                    until_s = min(end_s, open_until_s)
                    found.append(_span(pool, "breaker open", start_s, until_s))
        return _joined(found)

    def _condition(self, pool: str, up: int) -> Condition | None:
        if up >= self._replicas[pool]:
            return None
        return "replicas down" if up else "down"


def _span(pool: str, condition: Condition, start_s: float, end_s: float) -> HealthSpan:
    return HealthSpan(pool=pool, condition=condition, start_s=start_s, end_s=end_s)


def _joined(spans: list[HealthSpan]) -> tuple[HealthSpan, ...]:
    """Spans of one pool and condition that touch are one."""
    joined: list[HealthSpan] = []
    for span in sorted(spans, key=lambda one: (one.pool, one.condition, one.start_s)):
        last = joined[-1] if joined else None
        same = last is not None and (last.pool, last.condition) == (span.pool, span.condition)
        if last is not None and same and span.start_s <= last.end_s:
            joined[-1] = msgspec.structs.replace(last, end_s=max(last.end_s, span.end_s))
        else:
            joined.append(span)
    return tuple(sorted(joined, key=lambda one: (one.pool, one.start_s, one.condition)))
