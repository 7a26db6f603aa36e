"""How close did a run come to the spend caps of its providers?"""

import math
from collections import Counter

import msgspec

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.fleet.provider_spend import SECONDS_PER_DAY
from steelyard.ledger.ledger import Ledger


class CapKept(msgspec.Struct, frozen=True, kw_only=True):
    """One cap, and the span in which most was spent.

    Attributes:
        provider: The provider.
        span: `hour` or `day`.
        cap_usd: The cap, as its pools last had it.
        most_usd: Most that attempts cost that ended in one such span.
        turned: Placements that had its pools refused for the caps of the provider.
    """

    provider: str
    span: str
    cap_usd: float
    most_usd: float
    turned: int


def caps_kept(ledger: Ledger) -> tuple[CapKept, ...]:
    """What was spent in the fullest hour and day of each provider that has a cap?

    Args:
        ledger: The books of a run.

    Returns:
        One per cap, by provider, the hour first.
    """
    caps = {one.provider: one.spend_cap for one in ledger.pools.values() if one.spend_cap}
    turned: Counter[str] = Counter()
    for one in ledger.attempts:
        refused = {v.pool for v in one.decision.verdicts if v.verdict == "over_cap"}
        turned.update({ledger.pools[pool].provider for pool in refused if pool in ledger.pools})
    kept: list[CapKept] = []
    for provider, cap in sorted(caps.items()):
        for span, length_s, cap_usd in (
            ("hour", SECONDS_PER_HOUR, cap.usd_per_hour),
            ("day", SECONDS_PER_DAY, cap.usd_per_day),
        ):
            if cap_usd is not None:
                most_usd = _most_usd(ledger, provider, length_s)
                kept.append(
                    CapKept(
                        provider=provider,
                        span=span,
                        cap_usd=cap_usd,
                        most_usd=most_usd,
                        turned=turned[provider],
                    )
                )
    return tuple(kept)


def _most_usd(ledger: Ledger, provider: str, length_s: float) -> float:
    spans: dict[int, list[float]] = {}
    for one in ledger.attempts:
        if ledger.pools[one.decision.pool].provider == provider:
            spans.setdefault(int(one.finished_s // length_s), []).append(one.cost_usd)
    return max(map(math.fsum, spans.values()), default=0.0)
