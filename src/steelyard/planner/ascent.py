"""Which prices of service prove most? Ascent of the Lagrangian bound without a linear program.

The bound of `planner.ranges`, L(u) = sum_b u_b + sum_o min_k v_o(k), is concave in the prices u,
and 1 - sum_o x_ob is a supergradient, with x_o the shares that offer o takes at its best number of
machines. Where machines are few, ascending it takes a tenth of the time in which cuts lift the
linear program as far, and comes closer: 200 sorted rows per step are all there is to do.
Only for problems without losses and caps: one block, and machines cost their price.
Sources: Held, Wolfe, Crowder, Validation of subgradient optimization, Math. Programming 6 (1974);
deflected direction: Camerini, Fratta, Maffioli, Math. Programming Study 3 (1975).
"""

from collections.abc import Callable

import msgspec
import numpy as np

from steelyard.planner.demand import FloatArray

DEFLECTION = 0.7
AVERAGED = 0.1
HOPE_FRAC = 0.05
LEAST_HOPE_FRAC = 1e-5
LEAST_STEP = 2e-4
SHORTER = 0.5


class Offers:
    """Offers as arrays, and what they do at given prices.

    Attributes:
        usd_per_hour: Prices, shape (offers,).
        loads: Machines kept busy by a whole bucket, shape (offers, buckets); 0 where unable.
        per_load: 1 / load, 0 where unable.
    """

    def __init__(self, loads: FloatArray, usd_per_hour: FloatArray) -> None:
        able = np.isfinite(loads)
        self.usd_per_hour = usd_per_hour
        self.loads = np.where(able, loads, 0.0)
        self.per_load = np.where(able, 1.0 / np.where(able, loads, 1.0), 0.0)

    def respond(self, worth_usd: FloatArray, box: "Box", *, margins: bool = False) -> "Response":
        """How many machines of each offer pay at these prices, between least and most?

        v_o is convex, so that its best whole number is beside the number of machines that the
        buckets worth their rent keep busy.

        Args:
            worth_usd: USD/h per whole bucket, shape (buckets,).
            box: Numbers of machines that are looked at.
            margins: Whether to say what one machine more or less adds, too.
        """
        order = np.argsort(-worth_usd * self.per_load, axis=1)
        loads = np.take_along_axis(self.loads, order, axis=1)
        per_load = np.take_along_axis(self.per_load, order, axis=1)
        worth = worth_usd[order] * (loads > 0.0)
        before = np.cumsum(loads, axis=1) - loads
        pays = worth * per_load > self.usd_per_hour[:, None]
        busy = np.floor((loads * pays).sum(axis=1))

        def value(machines: FloatArray) -> tuple[FloatArray, FloatArray]:
            shares = np.clip((machines[:, None] - before) * per_load, 0.0, 1.0)
            return self.usd_per_hour * machines - (worth * shares).sum(axis=1), shares

        few: FloatArray = np.clip(busy, box.least, box.most)
        many: FloatArray = np.clip(busy + 1.0, box.least, box.most)
        (few_usd, few_shares), (many_usd, many_shares) = value(few), value(many)
        more_pay = many_usd < few_usd
        usd = np.where(more_pay, many_usd, few_usd)
        machines = np.where(more_pay, many, few)
        shares = np.where(more_pay[:, None], many_shares, few_shares)
        served: FloatArray = np.bincount(order.ravel(), shares.ravel(), len(worth_usd)).astype(
            np.float64
        )
        nothing = np.zeros(0)
        return Response(
            bound_usd=float(worth_usd.sum() + usd.sum()),
            unserved=1.0 - served,
            machines=machines,
            one_more_usd=value(machines + 1.0)[0] - usd if margins else nothing,
            one_less_usd=value(np.maximum(machines - 1.0, 0.0))[0] - usd if margins else nothing,
        )

    def rents(self, worth_usd: FloatArray, machines: FloatArray) -> FloatArray:
        """What is the last part of so many machines of each offer worth at these prices?

        The rent of none is that of the first. Shape (offers,).
        """
        order = np.argsort(-worth_usd * self.per_load, axis=1)
        loads = np.take_along_axis(self.loads, order, axis=1)
        filled = np.cumsum(loads, axis=1)
        last = (filled < np.maximum(machines, 1.0)[:, None]).sum(axis=1)
        last = np.minimum(last, loads.shape[1] - 1)[:, None]
        rents: FloatArray = np.take_along_axis(
            worth_usd[order] * np.take_along_axis(self.per_load, order, axis=1), last, axis=1
        )[:, 0]
        return np.minimum(rents, self.usd_per_hour)


class Box(msgspec.Struct, frozen=True):
    """Numbers of machines that are looked at.

    Attributes:
        least: Per offer, shape (offers,).
        most: Per offer, shape (offers,).
    """

    least: FloatArray
    most: FloatArray


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What the offers do at given prices.

    Attributes:
        bound_usd: No fleet in the box costs less.
        unserved: 1 - what all offers together take of each bucket, shape (buckets,).
        machines: The whole numbers that pay most, shape (offers,).
        one_more_usd: What one more machine of each offer adds to the bound; empty if not asked.
        one_less_usd: What one less adds; empty if not asked.
    """

    bound_usd: float
    unserved: FloatArray
    machines: FloatArray
    one_more_usd: FloatArray
    one_less_usd: FloatArray


class Climb(msgspec.Struct, frozen=True, kw_only=True):
    """How to climb.

    Attributes:
        steps: At most so many.
        step: Length of the first, 1 for far away.
        patience: Steps without success before they become shorter.
        enough_usd: Stop at a bound this high.
        surely: So many steps are taken however late it is.
    """

    steps: int
    step: float
    patience: int
    enough_usd: float = np.inf
    surely: int = 0


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """The best prices met.

    Attributes:
        worth_usd: USD/h per whole bucket, shape (buckets,).
        bound_usd: L there: no fleet in the box costs less.
        machines: What the offers did on the way, averaged; shape (offers,).
    """

    worth_usd: FloatArray
    bound_usd: float
    machines: FloatArray


def ascend(
    offers: Offers,
    start_usd: FloatArray,
    box: Box,
    how: Climb,
    stop: Callable[[], bool] = lambda: False,
) -> Peak:
    """Which prices give the best bound for fleets in this box?

    Args:
        offers: The offers.
        start_usd: First prices, shape (buckets,).
        box: Numbers of machines.
        how: Limits.
        stop: Asked at every step: whether to come back at once.

    Returns:
        The best prices met, never worse than the first.
    """
    worth, step, failures = start_usd, how.step, 0
    found = offers.respond(worth, box)
    best_usd, best = found.bound_usd, worth
    machines, direction = found.machines.copy(), found.unserved
    for taken in range(how.steps):
        if best_usd >= how.enough_usd or step < LEAST_STEP or (taken >= how.surely and stop()):
            break
        hope_usd = best_usd * (1.0 + max(HOPE_FRAC * step, LEAST_HOPE_FRAC))
        slope = float(direction @ found.unserved)
        if slope <= 0.0:
            slope = float(direction @ direction)
        worth = np.maximum(worth + (hope_usd - found.bound_usd) / max(slope, 1e-12) * direction, 0)
        found = offers.respond(worth, box)
        machines += AVERAGED * (found.machines - machines)
        if found.bound_usd > best_usd * (1.0 + 1e-7):
            best_usd, best, failures = found.bound_usd, worth, 0
        else:
            failures += 1
        if failures >= how.patience:
            worth, failures, step = best, 0, SHORTER * step
            found = offers.respond(worth, box)
            direction = np.zeros_like(direction)
        direction = found.unserved + DEFLECTION * direction
    return Peak(worth_usd=best, bound_usd=best_usd, machines=machines)
