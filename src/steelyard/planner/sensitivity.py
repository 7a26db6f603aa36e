"""What would change the answer? The plan made anew with other prices, loads and cached shares."""

import itertools
import math
from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.demand import Demand
from steelyard.planner.load_curve import scaled
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand, planning_problem
from steelyard.planner.plan_checks import PriceRange, Sensitivity, SensitivityCase
from steelyard.planner.search_limits import SearchLimits
from steelyard.planner.solve import Solution, solve
from steelyard.planner.workload_demand import StepClass, WorkloadDemand

# Changes of one price that are tried, as shares of it.
RISES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FALLS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)
LOADS = (0.5, 2.0, 10.0)
CACHED_POINTS = (-0.1, 0.1)

# Told (parts done, all parts).
Tick = Callable[[int, int], None]


def sensitivity(
    plan: FleetPlan, demand: WorkloadDemand, catalog: Catalog, tick: Tick
) -> Sensitivity:
    """Which changes would make another fleet the cheapest?

    Every row is a plan made anew under the plan's own rules, the budget aside. For prices, the
    fleet counts as beaten when another one is cheaper by more than the gap that was proven.

    Args:
        plan: The plan.
        demand: What it was made for.
        catalog: What it was made from.
        tick: Told of progress.

    Returns:
        Ranges of the prices of what is bought, and plans for other loads and cached shares.
    """
    options = msgspec.structs.replace(plan.options, with_baselines=False, budget_usd_per_hour=None)
    plain = planning_problem(demand, catalog, plan.slo, options).plain
    changes = _changes(demand)
    parts = itertools.count(1)
    total = len(plan.machines) + len(changes)
    prices: list[PriceRange] = []
    for machines in plan.machines:
        prices.append(_price_range(plain, plan.fleet(), machines.offering, options.limits))
        tick(next(parts), total)
    cases: list[SensitivityCase] = []
    for label, changed in changes:
        cases.append(_case(label, changed, plan, (catalog, plan.slo, options)))
        tick(next(parts), total)
    return Sensitivity(prices=tuple(prices), cases=tuple(cases))


def _changes(demand: WorkloadDemand) -> list[tuple[str, WorkloadDemand]]:
    found = [(f"load x {factor:g}", scaled(demand, factor)) for factor in LOADS]
    if any(c.kind == "llm" for c in demand.classes):
        for points in CACHED_POINTS:
            label = f"cached share of prompts {100.0 * points:+.0f} points"
            found.append((label, _with_cached(demand, points)))
    return found


def _with_cached(demand: WorkloadDemand, points: float) -> WorkloadDemand:
    """The demand with this much more of every prompt found in a cache, as far as there is more."""
    classes = tuple(_cached(step, points) for step in demand.classes)
    return msgspec.structs.replace(demand, classes=classes)


def _cached(step: StepClass, points: float) -> StepClass:
    fewer = points * step.prompt_tokens
    longest = max(step.prompt_tokens, step.high_uncached_tokens)
    return msgspec.structs.replace(
        step,
        uncached_tokens=min(max(step.uncached_tokens - fewer, 0.0), step.prompt_tokens),
        high_uncached_tokens=min(max(step.high_uncached_tokens - fewer, 0.0), longest),
    )


def _case(
    label: str,
    demand: WorkloadDemand,
    plan: FleetPlan,
    planned_from: tuple[Catalog, Slo, PlanOptions],
) -> SensitivityCase:
    try:
        found = plan_demand(demand, *planned_from)
    except InfeasiblePlanError as error:
        return SensitivityCase(
            change=label,
            usd_per_hour=None,
            usd_per_1000_tasks=None,
            fleet={},
            same_mix=False,
            infeasible=str(error),
        )
    return SensitivityCase(
        change=label,
        usd_per_hour=found.usd_per_hour,
        usd_per_1000_tasks=found.usd_per_1000_tasks,
        fleet=found.fleet(),
        same_mix=found.fleet().keys() == plan.fleet().keys(),
    )


def _price_range(
    plain: Demand, fleet: dict[str, int], offering: str, limits: SearchLimits
) -> PriceRange:
    keeps_down, leaves_down, _ = _limit(plain, fleet, (offering, -1.0), FALLS, limits)
    keeps_up, leaves_up, instead = _limit(plain, fleet, (offering, 1.0), RISES, limits)
    return PriceRange(
        offering=offering,
        machines=fleet[offering],
        keeps_down_frac=keeps_down,
        leaves_down_frac=leaves_down,
        keeps_up_frac=keeps_up,
        leaves_up_frac=leaves_up,
        instead=instead,
    )


def _limit(
    plain: Demand,
    fleet: dict[str, int],
    moved: tuple[str, float],
    shares: tuple[float, ...],
    limits: SearchLimits,
) -> tuple[float, float | None, dict[str, int]]:
    """The last of `shares` at which the fleet stands, the first at which it is beaten, by what.

    The cost of every fleet is linear in one price, so that a fleet is cheapest on an interval:
    bisection finds its end.
    """
    offering, sign = moved
    stands, beaten = -1, len(shares)
    by: dict[str, int] = {}
    while beaten - stands > 1:
        middle = (stands + beaten) // 2
        better = _better(plain, fleet, offering, 1.0 + sign * shares[middle], limits)
        if better is None:
            stands = middle
        else:
            beaten, by = middle, better.fleet
    keeps = 0.0 if stands < 0 else shares[stands]
    return keeps, None if beaten == len(shares) else shares[beaten], by


def _better(
    plain: Demand, fleet: dict[str, int], offering: str, factor: float, limits: SearchLimits
) -> Solution | None:
    """A fleet that is cheaper by more than the gap when this price is multiplied; None if none."""
    offers = tuple(
        msgspec.structs.replace(o, usd_per_hour=factor * o.usd_per_hour)
        if o.name == offering
        else o
        for o in plain.offers
    )
    usd = math.fsum(fleet.get(o.name, 0) * o.usd_per_hour for o in offers)
    moved = msgspec.structs.replace(plain, offers=offers)
    # A cap on a provider's share of the cost may forbid the fleet at the new prices.
    capped = plain.constraints.provider_share_cap is not None
    try:
        found = solve(moved, limits, None if capped else fleet)
    except InfeasiblePlanError:
        return None
    return found if found.usd_per_hour < usd * (1.0 - limits.gap_frac) else None
