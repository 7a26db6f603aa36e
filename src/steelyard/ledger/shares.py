"""Who was paid, and how sure is a share? Providers' shares, energy's range, attainment's range."""

import math

import msgspec

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.ledger.power import ReplicaFacts
from steelyard.ledger.run_figures import RunFigures

# Quantile of the normal distribution for an interval of 95 %.
_Z = 1.959963984540054


class EnergyRange(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of a run with its bounds, in kWh.

    Attributes:
        idle_kwh: All rented time at idle power: no less was drawn.
        estimate_kwh: Full power while anything ran, idle power else.
        full_kwh: All rented time at full power: no more was drawn.
        unknown: Pools without a source of their power, which are in none of the three.
    """

    idle_kwh: float
    estimate_kwh: float
    full_kwh: float
    unknown: tuple[str, ...]


def energy_range(run: RunFigures, facts: dict[str, ReplicaFacts]) -> EnergyRange | None:
    """What energy did a run take, at the least and at the most?

    Args:
        run: Its figures.
        facts: What replicas of each pool are made of.

    Returns:
        The range; None where no pool has a source of its power.
    """
    known: list[tuple[float, float, float]] = []
    unknown: list[str] = []
    for pool in run.pools:
        made_of = facts.get(pool.pool, ReplicaFacts())
        hours = pool.rented_replicas * run.span_s / SECONDS_PER_HOUR
        idle, full = made_of.energy_kwh(hours, 0.0), made_of.energy_kwh(hours, hours)
        if idle is None or full is None or pool.energy_kwh is None:
            unknown.append(pool.pool)
        else:
            known.append((idle, pool.energy_kwh, full))
    if not known:
        return None
    return EnergyRange(
        idle_kwh=math.fsum(idle for idle, _, _ in known),
        estimate_kwh=math.fsum(estimate for _, estimate, _ in known),
        full_kwh=math.fsum(full for _, _, full in known),
        unknown=tuple(unknown),
    )


def provider_shares(run: RunFigures, pools: dict[str, PoolSpec]) -> dict[str, tuple[float, float]]:
    """What was paid to each provider, and which share of everything was that?

    Args:
        run: A run's figures.
        pools: Its pools by name.

    Returns:
        Provider to (USD, share), the dearest first.
    """
    paid: dict[str, list[float]] = {}
    for pool in run.pools:
        paid.setdefault(pools[pool.pool].provider, []).append(pool.paid_usd)
    sums = {provider: math.fsum(amounts) for provider, amounts in paid.items()}
    return shares_of(sums)


def shares_of(amounts_usd: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Amounts with their share of the sum, the largest first.

    >>> shares_of({"a": 1.0, "b": 3.0})
    {'b': (3.0, 0.75), 'a': (1.0, 0.25)}
    """
    total_usd = math.fsum(amounts_usd.values())
    ordered = sorted(amounts_usd, key=lambda one: (-amounts_usd[one], one))
    return {
        one: (amounts_usd[one], amounts_usd[one] / total_usd if total_usd else 0.0)
        for one in ordered
    }


def attainment_range(met: int, ended: int) -> tuple[float, float] | None:
    """Between which shares does the true attainment lie with 95 % confidence?

    Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), for tasks that are
    independent of one another; a burst of late tasks makes it too narrow.

    Args:
        met: Tasks that met every SLO.
        ended: Tasks that ended.

    Returns:
        Lower and upper bound; None without tasks.

    >>> low, high = attainment_range(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    if ended == 0:
        return None
    share, z2 = met / ended, _Z * _Z
    middle = (share + z2 / (2.0 * ended)) / (1.0 + z2 / ended)
    spread = math.sqrt(share * (1.0 - share) / ended + z2 / (4.0 * ended * ended))
    half = _Z * spread / (1.0 + z2 / ended)
    return max(0.0, middle - half), min(1.0, middle + half)
