"""Which offers can be left out because another one is better in every way?"""

import numpy as np

from steelyard.planner.demand import Demand

# Comparing every pair of offers on every bucket beyond this many cells costs more than it saves.
MOST_CELLS = 200_000_000


def undominated(demand: Demand) -> list[int]:
    """Which offers are not beaten?

    Offer o is beaten by p that is lost with nothing but what takes o, too, and has no stock limit,
    if p costs no more and does at least as much of every bucket; of equals the first stays. Leaving
    o out changes no
    cost: every o can be replaced by a p. Under a provider share cap it could: the money that one
    provider no longer gets raises the shares of the others, so all offers are kept.

    Args:
        demand: A checked planning problem.

    Returns:
        Indices of the offers to keep, ascending.
    """
    load, usd = demand.load(), demand.prices()
    offers, buckets = load.shape
    cap = demand.constraints.provider_share_cap
    if cap is not None and cap < 1.0:
        return list(range(offers))
    if offers * offers * buckets > MOST_CELLS:
        return list(range(offers))
    lost = np.array([loss.lost for loss in demand.losses()], dtype=np.bool_)
    lost = lost.reshape(-1, offers)
    unlimited = np.array([o.stock is None for o in demand.offers])
    keep = np.ones(offers, dtype=np.bool_)
    for o in range(offers):
        no_riskier = (lost <= lost[:, [o]]).all(axis=0)
        rivals = keep & unlimited & no_riskier & (usd <= usd[o])
        rivals[o] = False
        index = np.flatnonzero(rivals)
        if index.size == 0:
            continue
        as_good = (load[index] <= load[o]).all(axis=1)
        equal = (load[index] == load[o]).all(axis=1) & (usd[index] == usd[o])
        equal &= (lost[:, index] == lost[:, [o]]).all(axis=0)
        keep[o] = not bool((as_good & (~equal | (index < o))).any())
    return np.flatnonzero(keep).tolist()
