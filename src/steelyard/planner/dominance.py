"""Which offers can be left out because another one is better in every way?"""

import numpy as np

from steelyard.planner.demand import Demand

# Comparing every pair of offers on every bucket beyond this many cells costs more than it saves.
MOST_CELLS = 200_000_000


def undominated(demand: Demand) -> list[int]:
    """Which offers are not beaten?

    Offer o is beaten by p of the same provider, without a stock limit, if p costs no more and
    does at least as much of every bucket; of equals the first stays. Leaving o out changes no
    cost: every o can be replaced by a p. Under a provider share cap it can raise the cost a little:
    the money that one provider no longer gets raises the shares of the others. The search then
    keeps its bound valid for all offers by counting that money (`overspend` of `planner.master`).

    Args:
        demand: A checked planning problem.

    Returns:
        Indices of the offers to keep, ascending.
    """
    load, usd = demand.load(), demand.prices()
    offers, buckets = load.shape
    if offers * offers * buckets > MOST_CELLS:
        return list(range(offers))
    providers = np.array([o.provider for o in demand.offers])
    unlimited = np.array([o.stock is None for o in demand.offers])
    keep = np.ones(offers, dtype=np.bool_)
    for o in range(offers):
        rivals = keep & unlimited & (providers == providers[o]) & (usd <= usd[o])
        rivals[o] = False
        index = np.flatnonzero(rivals)
        if index.size == 0:
            continue
        as_good = (load[index] <= load[o]).all(axis=1)
        equal = (load[index] == load[o]).all(axis=1) & (usd[index] == usd[o])
        keep[o] = not bool((as_good & (~equal | (index < o))).any())
    return np.flatnonzero(keep).tolist()
