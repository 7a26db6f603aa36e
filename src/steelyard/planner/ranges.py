"""How many machines of each offer can a fleet within this budget hold? Lagrangian ranges.

Price the service of bucket b in block s at u_sb >= 0 and drop the demand rows: every offer stands
alone, and any fleet that serves everything costs at least

    L(u) = sum_sb u_sb + sum_o min_k v_o(k),   v_o(k) = c_o k - sum_s K_so(k),

with K_so(k) = max { sum_b u_sb x_b : sum_b load_sob x_b <= k, 0 <= x <= 1 }, a knapsack that may
split its items, thus concave in k; c_o is the price and what the rows of the provider caps add to
it. A fleet with k machines of offer o costs at least L(u) + v_o(k) - min v_o, so only the k where
this is inside the budget need be looked at: a range, since v_o is convex. With the duals of the
linear program with all residual-capacity cuts L(u) is that program's optimum.
Source: Geoffrion, Lagrangean relaxation for integer programming, Math. Programming Study 2 (1974).
"""

import math

import msgspec
import numpy as np

from steelyard.planner.demand import FloatArray
from steelyard.planner.master import Master

SAFETY = 1e-7


class Curve(msgspec.Struct, frozen=True):
    """v_o of one offer: convex and piecewise linear.

    Attributes:
        machines: Corners, ascending from 0; shape (corners,).
        usd: v_o there.
        slope_usd: Of the last piece, which has no end.
        least_usd: The smallest v_o of a whole number in stock.
    """

    machines: FloatArray
    usd: FloatArray
    slope_usd: float
    least_usd: float

    def within(self, usd: float) -> tuple[float, float]:
        """Between which numbers of machines is v_o at most this? Not rounded.

        >>> curve = Curve(np.array([0.0, 2.0]), np.array([0.0, -2.0]), 1.0, -2.0)
        >>> curve.within(-1.0)
        (1.0, 3.0)
        """
        low = int(self.usd.argmin())
        falling = float(np.interp(-usd, -self.usd[: low + 1], self.machines[: low + 1]))
        if usd >= self.usd[-1]:
            if self.slope_usd <= 0.0:
                return falling, math.inf
            return falling, float(self.machines[-1] + (usd - self.usd[-1]) / self.slope_usd)
        return falling, float(np.interp(usd, self.usd[low:], self.machines[low:]))


class Relaxation:
    """The Lagrangian relaxation at the duals of a master's last solution, or at better prices.

    Attributes:
        bound_usd_per_hour: L(u); no fleet costs less.
    """

    def __init__(
        self, master: Master, stock: FloatArray, worth_usd: FloatArray | None = None
    ) -> None:
        """Price the service.

        Args:
            master: The problem, solved.
            stock: Machines per offer at most, shape (offers,); infinity without a limit.
            worth_usd: USD/h per whole bucket, shape (blocks, buckets), none negative; None for
                the duals of the master's last solution.
        """
        worth, usd = master.lagrangian_prices()
        worth = worth if worth_usd is None else worth_usd
        self._stock = stock
        self._curves = [
            _curve(float(usd[o]), worth, master.loads[:, o, :], float(stock[o]))
            for o in range(len(usd))
        ]
        least = [curve.least_usd for curve in self._curves]
        self.bound_usd_per_hour = math.fsum([*worth.ravel().tolist(), *least])

    def ranges(self, below_usd: float) -> tuple[FloatArray, FloatArray]:
        """How few and how many machines of each offer can a fleet that costs less than this hold?

        Returns:
            Least and greatest whole numbers, each of shape (offers,).
        """
        spare_usd = below_usd - self.bound_usd_per_hour + SAFETY * abs(below_usd)
        low, high = np.zeros(len(self._curves)), self._stock.copy()
        for o, curve in enumerate(self._curves):
            least, most = curve.within(curve.least_usd + max(spare_usd, 0.0))
            low[o] = math.ceil(least - SAFETY)
            if most < high[o]:
                high[o] = math.floor(most + SAFETY)
        return low, np.maximum(low, high)


def _curve(usd: float, worth: FloatArray, loads: FloatArray, stock: float) -> Curve:
    """v_o of one offer at price `usd`; worth and loads have the shape (blocks, buckets)."""
    gains: list[tuple[FloatArray, FloatArray]] = []
    for u, load in zip(worth, loads, strict=True):
        useful = np.flatnonzero(np.isfinite(load) & (u > 0.0))
        order = useful[np.argsort(-u[useful] / load[useful], kind="stable")]
        filled = np.concatenate([[0.0], np.cumsum(load[order])])
        gains.append((filled, np.concatenate([[0.0], np.cumsum(u[order])])))
    corners = gains[0][0] if len(gains) == 1 else np.unique(np.concatenate([f for f, _ in gains]))
    values = usd * corners
    for filled, gain in gains:
        values -= np.interp(corners, filled, gain)
    whole = np.unique(np.minimum(np.concatenate([np.floor(corners), np.ceil(corners)]), stock))
    if math.isfinite(stock):
        whole = whole[whole <= math.floor(stock)]
    at_whole = usd * whole
    for filled, gain in gains:
        at_whole -= np.interp(whole, filled, gain)
    return Curve(corners, values, usd, float(at_whole.min()))
