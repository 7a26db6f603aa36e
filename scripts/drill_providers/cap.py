"""The last phase of the drill: the provider that is used most reaches a spend cap under load."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from steelyard.domain.events import Event, PoolAdded, StepPlaced
from steelyard.ledger.ledger import Ledger

PHASE = "cap"
# The cap leaves room for this part of the phase's steps, as many as the provider took before.
_PART = 0.3


class CapSet(NamedTuple):
    """A cap that was put into the configuration.

    Attributes:
        provider: Whose.
        usd_per_day: How much.
        since_s: When the gateway had read it, on the log's clock.
    """

    provider: str
    usd_per_day: float
    since_s: float


class CapVerdict(NamedTuple):
    """How a cap was kept.

    Attributes:
        spent_usd: What the provider's attempts cost, from the first to the last.
        placed: Steps placed there after the cap was set.
        turned: Placements that went elsewhere because of it.
    """

    spent_usd: float
    placed: int
    turned: int


def chosen(events: Iterable[Event], steps: int) -> tuple[str, float]:
    """Which provider gets a cap, and how much? The most used; room for a part of the phase.

    Args:
        events: The log so far.
        steps: How many steps the phase has.

    Returns:
        The provider, and USD per day.
    """
    ledger = Ledger.of(events)
    spent: dict[str, list[float]] = {}
    for one in ledger.attempts:
        spent.setdefault(ledger.pools[one.decision.pool].provider, []).append(one.cost_usd)
    provider = max(sorted(spent), key=lambda name: len(spent[name]))
    each_usd = math.fsum(spent[provider]) / len(spent[provider])
    share = len(spent[provider]) / sum(map(len, spent.values()))
    return provider, math.fsum(spent[provider]) + _PART * share * steps * each_usd


def judged(events: Iterable[Event], cap: CapSet) -> CapVerdict:
    """Was the cap kept, and did it turn steps away?"""
    events = list(events)
    ledger = Ledger.of(events)
    pools = {name for name, spec in ledger.pools.items() if spec.provider == cap.provider}
    costs = [one.cost_usd for one in ledger.attempts if one.decision.pool in pools]
    placed = turned = 0
    for event in events:
        if isinstance(event, StepPlaced) and event.t_s >= cap.since_s:
            placed += event.decision.pool in pools
            turned += any(
                one.verdict == "over_cap" and one.pool in pools for one in event.decision.verdicts
            )
    return CapVerdict(math.fsum(costs), placed, turned)


def set_since(events: Iterable[Event], provider: str) -> float:
    """When did the log hear of the cap?"""
    told = [
        event.t_s
        for event in events
        if isinstance(event, PoolAdded)
        and event.spec.provider == provider
        and event.spec.spend_cap is not None
    ]
    return min(told)
