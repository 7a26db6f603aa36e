"""Which inequalities over several offers does a fractional solution break? Gomory cuts.

A row of the simplex tableau, `n_o + sum_j t_j z_j = beta` over the nonbasic z_j >= 0, with
f = beta - floor(beta) gives

    sum_j phi_j z_j >= 1,   phi_j = t_j / f if t_j >= 0 else -t_j / (1 - f)   for shares and slacks,
    phi_j = g / f if g <= f else (1 - g) / (1 - f), g = t_j - floor(t_j)      for machines.

The slacks are then replaced by their rows, so that the cut speaks of n and x only. The multipliers
of the row give t_j, and with it the coefficient, for every share of the demand: also for those
that are not priced in, so that the cut holds for the whole problem. The multiple of the demand row
that makes the coefficients of all other offers vanish is taken off.
Source: Gomory, An algorithm for the mixed integer problem, RAND RM-2597 (1960).
"""

import math

import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import Cut, IntArray, Master

LEAST_FRACTION = 0.02
LEAST_VIOLATION = 1e-4
MOST_CELLS = 4000
NOISE = 1e-10
SAFETY = 1e-8


def _phi(values: FloatArray, fraction: float) -> FloatArray:
    return np.where(values >= 0.0, values / fraction, -values / (1.0 - fraction))


def gomory_cuts(master: Master, most: int) -> list[Cut]:
    """Which cuts does the master's last solution break most?

    Args:
        master: Solved, its basis not touched since.
        most: Number of cuts to return at most.

    Returns:
        The most violated ones first, in parts of their length.
    """
    n, shares = master.machines, master.cell_shares()
    found: list[tuple[float, int, Cut]] = []
    for row, offer in master.basic_machines():
        part = float(n[offer]) - math.floor(float(n[offer]))
        if not LEAST_FRACTION < part < 1.0 - LEAST_FRACTION:
            continue
        cut = _Row(master, master.row_multipliers(row)).cut()
        if cut is None:
            continue
        violation = _violation(master, cut, shares)
        if violation > LEAST_VIOLATION:
            found.append((-violation, offer, cut))
    found.sort(key=lambda item: item[:2])
    return [cut for _, _, cut in found[:most]]


def _violation(master: Master, cut: Cut, shares: FloatArray) -> float:
    """Distance of the last solution from the cut."""
    lacking = cut.at_least - float(cut.machines @ master.machines)
    lacking -= float(cut.values @ shares[cut.cells])
    used = cut.values[shares[cut.cells] > 0.0]
    return lacking / math.sqrt(float(cut.machines @ cut.machines) + float(used @ used))


class _Row:
    """One row of the tableau as multipliers of the rows of the program."""

    def __init__(self, master: Master, multipliers: FloatArray) -> None:
        multipliers[np.abs(multipliers) < NOISE] = 0.0
        blocks, offers, buckets = master.loads.shape
        demand, capacity = blocks * buckets, blocks * offers
        self.master = master
        self.demand = multipliers[:demand].reshape(blocks, buckets)
        self.capacity = multipliers[demand : demand + capacity]
        self.caps = multipliers[demand + capacity : master.first_cut_row]
        cuts = multipliers[master.first_cut_row :]
        self.cuts = [(float(cuts[k]), master.cuts[k]) for k in np.flatnonzero(cuts).tolist()]
        # Only these (block, offer) pairs get coefficients; all others share that of the bucket.
        involved = self.capacity != 0.0
        for _, cut in self.cuts:
            involved[cut.cells // buckets] = True
        self.pairs: IntArray = np.flatnonzero(involved)
        self._place = np.zeros(capacity, dtype=np.int64)
        self._place[self.pairs] = np.arange(len(self.pairs))

    def _add_rows(
        self, machines: FloatArray, cells: FloatArray, capacity: FloatArray, cuts: list[float]
    ) -> float:
        """Add multiples of capacity rows and cuts to coefficients; returns their right side."""
        blocks, offers, buckets = self.master.loads.shape
        machines += capacity.reshape(blocks, offers).sum(axis=0)
        loads = self.master.finite_loads.reshape(blocks * offers, buckets)[self.pairs]
        cells -= capacity[self.pairs][:, None] * loads
        flat = cells.reshape(-1)
        right = 0.0
        for multiple, (_, cut) in zip(cuts, self.cuts, strict=True):
            machines += multiple * cut.machines
            at = self._place[cut.cells // buckets] * buckets + cut.cells % buckets
            flat[at] += multiple * cut.values
            right += multiple * cut.at_least
        return right

    def cut(self) -> Cut | None:
        """The cut of this row; None where it would be too dense or too weak to help."""
        _, offers, buckets = self.master.loads.shape
        if len(self.pairs) * buckets > 20 * MOST_CELLS:
            return None
        if self.master.overspend and self.caps.any():
            return None  # it would need a coefficient for the money spent on nothing
        machines = np.zeros(offers)
        for multiplier, cap in zip(self.caps, self.master.caps, strict=True):
            machines += multiplier * cap
        cells = np.ascontiguousarray(self.demand[self.pairs // offers])
        beta = math.fsum(self.demand.ravel().tolist())
        beta += self._add_rows(machines, cells, self.capacity, [y for y, _ in self.cuts])
        fraction = beta - math.floor(beta)
        if not LEAST_FRACTION < fraction < 1.0 - LEAST_FRACTION:
            return None
        part = machines - np.floor(machines + NOISE)
        part[np.abs(part) < 10.0 * NOISE] = 0.0
        machines = np.where(part <= fraction, part / fraction, (1.0 - part) / (1.0 - fraction))
        shift = _phi(self.demand, fraction)
        cells = np.ascontiguousarray(_phi(cells, fraction) - shift[self.pairs // offers])
        slack_cuts = [float(_phi(np.array(-y), fraction)) for y, _ in self.cuts]
        for multiplier, cap in zip(self.caps, self.master.caps, strict=True):
            machines -= float(_phi(np.array(multiplier), fraction)) * cap
        right = 1.0 - math.fsum(shift.ravel().tolist())
        right += self._add_rows(machines, cells, _phi(-self.capacity, fraction), slack_cuts)
        return self._sparse(machines, cells, right)

    def _sparse(self, machines: FloatArray, cells: FloatArray, right: float) -> Cut | None:
        """Scale to the largest coefficient of n, leave out what is too small to matter."""
        blocks, offers, buckets = self.master.loads.shape
        scale = float(np.abs(machines).max())
        if scale < 1e-6:
            return None
        able = self.master.finite_loads.reshape(blocks * offers, buckets)[self.pairs] > 0.0
        values = np.where(able, cells / scale, 0.0)
        small = np.abs(values) < NOISE
        # A share is at most 1: what is left out lowers the right side by as much.
        right = right / scale - math.fsum(values[small & (values > 0.0)].tolist()) - SAFETY
        pair, bucket = np.nonzero(~small)
        if len(pair) > MOST_CELLS:
            return None
        return Cut(
            machines=machines / scale,
            cells=self.pairs[pair] * buckets + bucket,
            values=values[pair, bucket],
            at_least=right,
        )
