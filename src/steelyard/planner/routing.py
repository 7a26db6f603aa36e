"""Given a fleet: who serves what, how much more could it serve, and what is its capacity worth?"""

import highspy
import msgspec
import numpy as np

from steelyard.errors import SolverError
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.master import INFINITY
from steelyard.planner.solver import quiet_solver

FIRST_COLUMNS = 3
ENOUGH = 1e-6


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """How a fleet is used best.

    Attributes:
        shares: Share of each bucket that each offer serves, shape (offers, buckets).
        growth: The fleet serves this many times the demand, all buckets growing alike.
        bid_usd_per_hour: What one more machine's time is worth, per offer; 0 where it would stay
            idle. Scaled so that the fleet at full load earns its rent.
        bucket_usd_per_hour: What each bucket costs per hour at those bids.
    """

    shares: FloatArray
    growth: float
    bid_usd_per_hour: FloatArray
    bucket_usd_per_hour: FloatArray


def route(demand: Demand, machines: FloatArray) -> Routing:
    """Which shares keep a fleet as far from overload as possible?

    maximise g subject to `sum_o x_ob = g`, `sum_b load_ob x_ob <= n_o`, `x >= 0`; the shares are
    x / g. Its duals, scaled to the fleet's rent, are the bid prices.

    Args:
        demand: A checked planning problem.
        machines: Machines per offer, shape (offers,); they can serve the demand.

    Returns:
        Shares and duals.

    Raises:
        SolverError: The fleet cannot serve the demand.
    """
    load = demand.load()
    wanted = np.array([b.rate_per_s > 0.0 for b in demand.buckets])
    used = np.flatnonzero(machines > 0.5)
    usd = demand.prices()
    model = _GrowthModel(load[np.ix_(used, wanted)], machines[used], usd[used])
    growth, shares, rents, worths = model.solve()
    if growth < 1.0 - ENOUGH:
        raise SolverError(f"the fleet serves only {growth:.6f} of its demand; please report this")
    total_usd = float(machines @ usd)
    earned = float(rents @ machines[used])
    scale = total_usd / earned if earned > 0.0 else 0.0
    full = np.zeros_like(load)
    full[np.ix_(used, wanted)] = shares / shares.sum(axis=0)
    bids = np.zeros(len(usd))
    bids[used] = rents * scale
    bucket_usd = np.zeros(len(wanted))
    bucket_usd[wanted] = worths * scale
    return Routing(
        shares=full, growth=growth, bid_usd_per_hour=bids, bucket_usd_per_hour=bucket_usd
    )


def serves(loads: FloatArray, machines: FloatArray, usd_per_hour: FloatArray) -> bool:
    """Can whole machines serve everything on the normal day and after every loss?

    Args:
        loads: Machines kept busy by a whole bucket, shape (blocks, offers, buckets).
        machines: Shape (offers,).
        usd_per_hour: Prices, shape (offers,).
    """
    used = np.flatnonzero(machines > 0.5)
    for load in loads[:, used, :]:
        if not np.isfinite(load).any(axis=0).all():
            return False
        growth = _GrowthModel(load, machines[used], usd_per_hour[used]).solve()[0]
        if growth < 1.0 - ENOUGH:
            return False
    return True


def cheapest_apart(loads: FloatArray, usd_per_hour: FloatArray) -> FloatArray:
    """Which whole machines serve everything if every bucket goes where it is cheapest?

    Args:
        loads: Machines kept busy by a whole bucket, shape (blocks, offers, buckets).
        usd_per_hour: Prices, shape (offers,).

    Returns:
        Machines per offer, shape (offers,); as many as the worst loss needs. No limit of stock and
        no cap is looked at.

    >>> cheapest_apart(np.array([[[0.4, 2.0], [0.8, 1.1]]]), np.array([1.0, 1.0]))
    array([1., 2.])
    """
    needed = np.zeros(len(usd_per_hour))
    for load in loads:
        best = (load * usd_per_hour[:, None]).argmin(axis=0)
        busy = np.zeros_like(needed)
        np.add.at(busy, best, load[best, np.arange(len(best))])
        needed = np.maximum(needed, np.ceil(busy))
    return needed


class _GrowthModel:
    """The linear program of `route` over the offers in use, growing by columns."""

    def __init__(self, load: FloatArray, machines: FloatArray, usd: FloatArray) -> None:
        self._load = load
        self._open = np.isfinite(load)
        self._finite = np.where(self._open, load, 0.0)
        self._offers, self._buckets = load.shape
        self._cells: list[tuple[int, int]] = []
        self._solver = quiet_solver()
        self._solver.addVar(0.0, INFINITY)
        self._solver.changeColCost(0, -1.0)
        empty = np.zeros(0, dtype=np.int32)
        for n in machines:
            self._solver.addRow(-INFINITY, float(n), 0, empty, np.zeros(0))
        growth = np.zeros(1, dtype=np.int32)
        for _ in range(self._buckets):
            self._solver.addRow(0.0, 0.0, 1, growth, np.array([-1.0]))
        first = np.zeros_like(self._open)
        cheapest = np.argsort(usd[:, None] * load, axis=0, kind="stable")[:FIRST_COLUMNS]
        np.put_along_axis(first, cheapest, values=True, axis=0)
        self._add(first & self._open)

    def _add(self, wanted: np.typing.NDArray[np.bool_]) -> None:
        cells = np.argwhere(wanted)
        offer, bucket = cells.T
        count = len(cells)
        self._cells.extend((int(o), int(b)) for o, b in cells)
        rows = np.stack([offer, self._offers + bucket], axis=1).astype(np.int32).ravel()
        values = np.stack([self._load[offer, bucket], np.ones(count)], axis=1).ravel()
        starts = 2 * np.arange(count, dtype=np.int32)
        nothing, unlimited = np.zeros(count), np.full(count, INFINITY)
        self._solver.addCols(count, nothing, nothing, unlimited, 2 * count, starts, rows, values)
        self._open &= ~wanted

    def solve(self) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        """Growth, shares (offers, buckets), rent per offer and worth per bucket (duals)."""
        while True:
            self._solver.run()
            if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                raise SolverError("HiGHS could not route the fleet; please report the demand")
            solution = self._solver.getSolution()
            duals = np.array(solution.row_dual)
            rents = np.maximum(-duals[: self._offers], 0.0)
            worths = duals[self._offers :]
            saved = worths[None, :] - rents[:, None] * self._finite
            good = self._open & (saved > 1e-9 * max(1e-9, float(np.abs(worths).max())))
            if not good.any():
                break
            ranked = np.where(good, saved, -np.inf)
            best = np.argpartition(-ranked, min(FIRST_COLUMNS, self._offers - 1), axis=0)
            few = np.zeros_like(good)
            np.put_along_axis(few, best[:FIRST_COLUMNS], values=True, axis=0)
            self._add(good & few)
        values = solution.col_value
        shares = np.zeros((self._offers, self._buckets))
        for (o, b), value in zip(self._cells, values[1:], strict=True):
            shares[o, b] = max(value, 0.0)
        return float(values[0]), shares, rents, worths
