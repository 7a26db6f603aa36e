"""What should run at each hour of a day, and what does switching machines by the hour save?"""

import math
from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.planner.load_curve import scaled
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.workload_demand import WorkloadDemand

HOURS = 24
# Told (plans made, all plans).
Tick = Callable[[int, int], None]


class HourPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in one hour.

    Attributes:
        hour: From 0.
        load_frac: Load over that which the plan is for.
        usd_per_hour: Cost of the fleet.
        usd_per_hour_by_hardware: Rent by class of hardware.
        fleet: Machines per offering.
    """

    hour: int
    load_frac: float
    usd_per_hour: float
    usd_per_hour_by_hardware: dict[str, float]
    fleet: dict[str, int]


class DayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A day of plans beside the fleet of its busiest hour held all day.

    Attributes:
        hours: One per hour.
        assumed: Whether the course of the day is assumed, not given.
        usd_per_day: Cost when machines are switched by the hour, at once and for nothing.
        held_usd_per_day: Cost when the busiest hour's fleet is held.
        held_usd_per_hour_by_hardware: Rent of that fleet by class of hardware.
        saved_frac: What switching saves, of the latter.
    """

    hours: tuple[HourPlan, ...]
    assumed: bool
    usd_per_day: float
    held_usd_per_day: float
    held_usd_per_hour_by_hardware: dict[str, float]
    saved_frac: float


def assumed_day() -> tuple[float, ...]:
    """Load by hour over the busiest hour's, where none is given: one cosine, 0.3 to 1.

    Lowest at 3 and highest at 15 o'clock. An assumption, to be replaced by a course of one's own.

    >>> round(assumed_day()[3], 6), round(assumed_day()[15], 6)
    (0.3, 1.0)
    """
    return tuple(
        0.65 + 0.35 * math.cos(2.0 * math.pi * (hour - 15) / HOURS) for hour in range(HOURS)
    )


def plan_day(
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    loads: tuple[float, ...],
    tick: Tick,
) -> DayPlan:
    """Which fleet is cheapest in each hour of a day?

    Every hour is planned by itself. Thin: machines start at once and cost nothing to switch, so
    the saving is an upper bound; equal loads get equal fleets.

    Args:
        demand: What must be served at a load of 1.
        planned_from: Catalogue, limits and options.
        loads: Load of each hour over the demand; empty for the assumed course.
        tick: Told of progress.

    Returns:
        The day.

    Raises:
        InfeasiblePlanError: No fleet serves one of the hours.
    """
    catalog, slo, options = planned_from
    options = msgspec.structs.replace(options, with_baselines=False, budget_usd_per_hour=None)
    course = loads or assumed_day()
    plans: dict[float, FleetPlan] = {}
    distinct = sorted({round(load, 9) for load in course})
    for done, load in enumerate(distinct, 1):
        plans[load] = plan_demand(scaled(demand, load), catalog, slo, options)
        tick(done, len(distinct))
    hours = tuple(_hour(hour, load, plans[round(load, 9)]) for hour, load in enumerate(course))
    usd_per_day = math.fsum(one.usd_per_hour for one in hours)
    held = max(hours, key=lambda one: (one.usd_per_hour, -one.hour))
    held_usd = len(hours) * held.usd_per_hour
    return DayPlan(
        hours=hours,
        assumed=not loads,
        usd_per_day=usd_per_day,
        held_usd_per_day=held_usd,
        held_usd_per_hour_by_hardware=held.usd_per_hour_by_hardware,
        saved_frac=1.0 - usd_per_day / held_usd,
    )


def _hour(hour: int, load: float, plan: FleetPlan) -> HourPlan:
    return HourPlan(
        hour=hour,
        load_frac=load,
        usd_per_hour=plan.usd_per_hour,
        usd_per_hour_by_hardware=plan.rent_by_hardware(),
        fleet=plan.fleet(),
    )
