"""Which offers can be left out because another one is better in every way?"""

import numpy as np

from steelyard.planner.demand import Demand

# Comparing every pair of offers on every bucket beyond this many cells costs more than it saves.
MOST_CELLS = 200_000_000


def undominated(demand: Demand) -> list[int]:
    """Which offers are not beaten?

    Offer o is beaten by p that is lost with nothing but what takes o, too, and has no stock limit,
    if p costs no more and does at least as much of every bucket; of equals the first stays. Leaving
    o out changes no cost: every o can be replaced by a p.

    Under a provider share cap p must be of o's provider, and even then the cost can rise a little:
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
    cap = demand.constraints.provider_share_cap
    capped = cap is not None and cap < 1.0
    lost = np.array([loss.lost for loss in demand.losses()], dtype=np.bool_)
    lost = lost.reshape(-1, offers)
    unlimited = np.array([o.stock is None for o in demand.offers])
    keep = np.ones(offers, dtype=np.bool_)
    for o in range(offers):
        no_riskier = (lost <= lost[:, [o]]).all(axis=0)
        allowed = no_riskier & (providers == providers[o]) if capped else no_riskier
        rivals = keep & unlimited & allowed & (usd <= usd[o])
        rivals[o] = False
        index = np.flatnonzero(rivals)
        if index.size == 0:
            continue
        as_good = (load[index] <= load[o]).all(axis=1)
        equal = (load[index] == load[o]).all(axis=1) & (usd[index] == usd[o])
        equal &= (lost[:, index] == lost[:, [o]]).all(axis=0)
        keep[o] = not bool((as_good & (~equal | (index < o))).any())
    return np.flatnonzero(keep).tolist()
