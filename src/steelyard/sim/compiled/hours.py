"""Rents and bid prices that change with the hour, as `steelyard.sim.scaling` changes them."""

import math

import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.layout import World
from steelyard.sim.conditions import Conditions
from steelyard.sim.renting import at_hour
from steelyard.sim.scaling import bid_at


def lay_out_prices(
    table: layout.Records, pools: tuple[PoolSpec, ...], conditions: Conditions
) -> npt.NDArray[np.float64]:
    """Fill in the prices at the beginning, and where those of the later hours are.

    Args:
        table: The pools, which are changed.
        pools: The fleet.
        conditions: The world.

    Returns:
        The tables by the hour, end to end, in USD per replica-hour. A bid price that stays while
        rents change is a table of one entry.
    """
    prices: list[float] = []
    for row, spec in zip(table, pools, strict=True):
        renting = conditions.renting_of(spec.name)
        rents, bids = renting.usd_per_hour_by_hour, renting.bid_usd_per_hour_by_hour
        row["rent"] = at_hour(rents, conditions.first_hour) if rents else spec.usd_per_hour
        bid = bid_at(conditions, spec.name, conditions.first_hour)
        row["bid"] = row["rent"] if bid is None else bid
        if not changes_hourly(conditions, spec.name):
            continue
        if rents and not bids and bid is not None:
            bids = (bid,)
        row["rents_from"], row["rents"] = len(prices), len(rents)
        row["bids_from"], row["bids"] = len(prices) + len(rents), len(bids)
        prices.extend((*rents, *bids))
    return np.array(prices or [0.0])


def changes_hourly(conditions: Conditions, pool: str) -> bool:
    """Does a price of the pool change during the day?"""
    renting = conditions.renting_of(pool)
    return max(len(renting.usd_per_hour_by_hour), len(renting.bid_usd_per_hour_by_hour)) > 1


def start_clock(clock: layout.Records, conditions: Conditions) -> None:
    """Set the hour of the day, and when the next one begins that matters."""
    clock["first_hour"] = conditions.first_hour
    clock["hour"] = math.floor(conditions.first_hour)
    hourly = any(changes_hourly(conditions, pool) for pool in conditions.renting)
    clock["next_hour_s"] = math.inf
    if hourly:
        clock["next_hour_s"] = (clock["hour"] + 1 - conditions.first_hour) * SECONDS_PER_HOUR


def next_hour_s(world: World) -> float:
    """When does the next hour begin? Infinite when nothing is left that a price matters for."""
    clock = world.clock[0]
    left = clock["near_n"] + clock["pending"] + clock["far_n"] + clock["fifo_n"]
    if left == 0 and clock["next_arrival"] == len(world.arrivals):
        return math.inf
    return float(clock["next_hour_s"])


def begin_hour(world: World) -> None:
    """Let the prices of the next hour hold. What was placed before is paid at its old rent."""
    clock = world.clock[0]
    clock["hour"] += 1
    hour = clock["hour"]
    clock["next_hour_s"] = (hour + 1 - clock["first_hour"]) * SECONDS_PER_HOUR
    for at in range(len(world.pools)):
        pool = world.pools[at]
        if pool["rents"] > 0:
            rent = world.hourly_usd[pool["rents_from"] + hour % pool["rents"]]
            # A pool's new rent is its bid, too, until a bid says otherwise.
            if rent != pool["rent"]:
                pool["rent"] = pool["bid"] = rent
        if pool["bids"] > 0:
            pool["bid"] = world.hourly_usd[pool["bids_from"] + hour % pool["bids"]]
