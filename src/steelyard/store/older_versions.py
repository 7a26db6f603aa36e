"""What an older version of the log can hold: events as processes of that version read them.

A log keeps its version until `steelyard upgrade` changes it. Until then processes of this version
write into it only what those of the log's version read, so both may run on it at once, and a
rollback loses nothing. What they know beyond that is said in older words.
"""

import msgspec

from steelyard.domain.decision import Decision, PoolVerdict, Refusal
from steelyard.domain.events import (
    Event,
    PoolRemoved,
    RequestServed,
    StepPlaced,
    StepRefused,
    parts,
)
from steelyard.store.backend import SCHEMA_VERSION

# The first version that reads whole requests and pools that leave.
_WHOLE_REQUESTS = 4
# What version 5 is the first to read.
_NEW_VERDICTS = frozenset({"just_failed", "under_way", "over_cap"})


def as_version(event: Event, version: int) -> tuple[Event, ...]:
    """Which events tell the same in a log of this version or of an older one?

    Version 4 has no verdicts `just_failed`, `under_way` and `over_cap`: all become `down`, and the
    cause `spend_cap` of a refusal becomes `no_pool`. Version 3 has no
    whole requests and no pools that leave either: a request becomes its parts, and a pool that
    leaves stays, in that log, a pool that nothing is placed in. Fields that a version does not know
    it passes over.

    Args:
        event: What happened.
        version: The log's.

    Returns:
        Events that processes of that version read.

    >>> as_version(PoolRemoved(t_s=1.0, pool="spot"), 3)
    ()
    >>> len(as_version(PoolRemoved(t_s=1.0, pool="spot"), SCHEMA_VERSION))
    1
    """
    if version >= SCHEMA_VERSION:
        return (event,)
    told = (event,) if version >= _WHOLE_REQUESTS else _without_whole_requests(event)
    return tuple(_in_old_words(one) for one in told)


def _without_whole_requests(event: Event) -> tuple[Event, ...]:
    if isinstance(event, PoolRemoved):
        return ()
    return parts(event) if isinstance(event, RequestServed) else (event,)


def _in_old_words(event: Event) -> Event:
    if isinstance(event, StepPlaced | RequestServed):
        return msgspec.structs.replace(event, decision=_decision(event.decision))
    if isinstance(event, StepRefused):
        return msgspec.structs.replace(event, refusal=_refusal(event.refusal))
    return event


def _decision(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, verdicts=_verdicts(decision.verdicts))


def _refusal(refusal: Refusal) -> Refusal:
    cause = "no_pool" if refusal.cause == "spend_cap" else refusal.cause
    return msgspec.structs.replace(refusal, cause=cause, verdicts=_verdicts(refusal.verdicts))


def _verdicts(verdicts: tuple[PoolVerdict, ...]) -> tuple[PoolVerdict, ...]:
    return tuple(
        msgspec.structs.replace(one, verdict="down") if one.verdict in _NEW_VERDICTS else one
        for one in verdicts
    )
