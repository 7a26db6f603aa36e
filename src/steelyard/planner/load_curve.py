"""What does a demand cost at smaller and larger loads, on each class of hardware and on the mix?"""

from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.workload_demand import WorkloadDemand

# Told (loads done, all loads).
Tick = Callable[[int, int], None]

# Half-decades from a thousandth of the load to a hundred times it.
LOAD_FACTORS = tuple(10.0 ** (exponent / 2.0) for exponent in range(-6, 5))


class LoadPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Costs at one load.

    Attributes:
        tasks_per_s: Tasks per second.
        usd_per_1000_tasks: `mix`, `gpu`, `arm`, `x86` to the cost of 1,000 tasks, idle machines
            included; None where that hardware alone cannot serve it.
        mix_rent_frac: Share of the mix's rent by class of hardware.
    """

    tasks_per_s: float
    usd_per_1000_tasks: dict[str, float | None]
    mix_rent_frac: dict[str, float]


def cost_over_load(
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    tick: Tick,
    factors: tuple[float, ...] = LOAD_FACTORS,
) -> tuple[LoadPoint, ...]:
    """What does this demand cost at other loads?

    Every load is planned anew, so that whole machines and headroom count. A budget is not kept:
    it was meant for one load.

    Args:
        demand: What must be served.
        planned_from: Catalogue, limits and options.
        tick: Told of progress, after each load.
        factors: Loads to plan for, over the demand's own, ascending.

    Returns:
        One point per factor.

    Raises:
        InfeasiblePlanError: No fleet serves it at any of the loads.
    """
    catalog, slo, options = planned_from
    options = msgspec.structs.replace(options, with_baselines=True, budget_usd_per_hour=None)
    points: list[LoadPoint] = []
    failed: InfeasiblePlanError | None = None
    for done, factor in enumerate(factors, 1):
        try:
            plan = plan_demand(scaled(demand, factor), catalog, slo, options)
        except InfeasiblePlanError as error:
            # Stock limits may end the range.
            failed = error
        else:
            points.append(_point(plan))
        tick(done, len(factors))
    if not points and failed is not None:
        raise failed
    return tuple(points)


def scaled(demand: WorkloadDemand, factor: float) -> WorkloadDemand:
    """The demand at this many times its rates."""
    return msgspec.structs.replace(
        demand,
        tasks_per_s=demand.tasks_per_s * factor,
        classes=tuple(
            msgspec.structs.replace(one, rate_per_s=one.rate_per_s * factor)
            for one in demand.classes
        ),
    )


def _point(plan: FleetPlan) -> LoadPoint:
    costs: dict[str, float | None] = {"mix": plan.usd_per_1000_tasks}
    for baseline in plan.baselines:
        if baseline.name.startswith("all-"):
            costs[baseline.name.removeprefix("all-")] = baseline.usd_per_1000_tasks
    rents = plan.rent_by_hardware()
    return LoadPoint(
        tasks_per_s=plan.tasks_per_s,
        usd_per_1000_tasks=costs,
        mix_rent_frac={hardware: rent / plan.rent_usd_per_hour for hardware, rent in rents.items()},
    )
