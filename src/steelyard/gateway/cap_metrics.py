"""Spend caps of providers for Prometheus: what is in the span that runs, and what the cap is."""

from collections.abc import Sequence

from steelyard.fleet.provider_spend import CapUse
from steelyard.gateway.prometheus import Family


def cap_metrics(uses: Sequence[CapUse]) -> bytes:
    """Caps in Prometheus' text format.

    Args:
        uses: One per provider and span that has a cap.

    Returns:
        Lines; none without a cap.
    """
    if not uses:
        return b""
    used = Family(
        "steelyard_provider_spend_usd",
        "gauge",
        "Cost of steps at a capped provider this UTC hour or day, with what is reserved, in USD.",
    )
    caps = Family("steelyard_provider_cap_usd", "gauge", "The cap of that, in USD.")
    for one in uses:
        used.set(one.used_usd, provider=one.provider, span=one.span)
        caps.set(one.cap_usd, provider=one.provider, span=one.span)
    return "".join(f"{line}\n" for family in (used, caps) for line in family.lines()).encode()
