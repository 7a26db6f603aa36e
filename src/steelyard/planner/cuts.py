"""Which inequalities does a fractional solution break? Residual-capacity cuts.

For one block and offer, `sum_b a_b x_b <= n`, `0 <= x_b <= 1`, n integer. For any set S with load
W = sum_S a_b, c = ceil(W) and r = W - floor(W):

    sum_S a_b x_b <= W - r * (c - n)

holds for every integer n, and these cuts with the bounds describe the hull of that set exactly.
The most violated S is `{b: x_b > n - floor(n)}`.
Sources: Magnanti, Mirchandani, Vachani, Math. Programming 60 (1993); separation by Atamtürk and
Rajan, Math. Programming 92 (2002).
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import Cut, Master

VIOLATION = 1e-5


def residual_capacity(
    machines: float, shares: FloatArray, loads: FloatArray
) -> tuple[FloatArray, float, float] | None:
    """Which residual-capacity cut does this (n, x) break most?

    Args:
        machines: n, maybe fractional.
        shares: x_b, shape (buckets,).
        loads: a_b, shape (buckets,).

    Returns:
        Mask of S (1.0 where in S), coefficient r and right-hand side W - r*c; None if none.

    >>> mask, r, rhs = residual_capacity(0.3, np.array([1.0]), np.array([0.3]))
    >>> round(r, 6), round(rhs, 6)
    (0.3, 0.0)
    """
    whole = math.floor(machines + 1e-9)
    fraction = machines - whole
    if not 1e-6 < fraction < 1.0 - 1e-6:
        return None
    inside = shares > fraction + 1e-9
    total = float(loads[inside].sum())
    if not whole < total < whole + 1.0:
        return None
    rest = total - whole
    at_most = total - rest * (whole + 1.0)
    if float((loads * shares)[inside].sum()) - rest * machines <= at_most + VIOLATION:
        return None
    return inside.astype(np.float64), rest, at_most


def violated_cuts(master: Master) -> Iterator[Cut]:
    """Which cuts does the master's last solution break? At most one per block and offer."""
    offers = len(master.usd_per_hour)
    used = np.flatnonzero(master.shares > 1e-9)
    block, offer, _ = master.columns[:, used]
    group = block * offers + offer
    order = np.argsort(group, kind="stable")
    used, group = used[order], group[order]
    edges = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
    for start, stop in itertools.pairwise(edges.tolist()):
        cols = used[start:stop]
        o = int(master.columns[1, cols[0]])
        loads = master.loads[master.columns[0, cols], o, master.columns[2, cols]]
        found = residual_capacity(float(master.machines[o]), master.shares[cols], loads)
        if found is not None:
            mask, rest, at_most = found
            inside = mask > 0.0
            machines = np.zeros(offers)
            machines[o] = rest
            cells = master.cells(master.columns[:, cols[inside]])
            yield Cut(machines=machines, cells=cells, values=-loads[inside], at_least=-at_most)
