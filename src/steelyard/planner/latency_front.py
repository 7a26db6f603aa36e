"""What does it cost to be faster? Plans over a range of deadlines and gaps between tokens."""

import math
from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.deadlines import fastest_tasks_s
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand, planning_problem
from steelyard.planner.workload_demand import WorkloadDemand

# Told (plans made, all plans).
Tick = Callable[[int, int], None]

# Deadlines that are tried, over the shortest that any allowed hardware keeps.
DEADLINE_FACTORS = (1.0, 1.1, 1.3, 1.6, 2.0, 3.0, 5.0, 10.0)
# Gaps between tokens that are tried, over the limit asked for: fewer streams are faster.
GAP_FACTORS = (1.0, 0.4, 0.16)


class LatencyPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One plan.

    Attributes:
        task_s: Planned seconds of a task's longest chain at full load, waiting aside; the mean
            over agents, each weighted by its steps per second.
        usd_per_1000_tasks: Cost of 1,000 tasks, idle machines included.
        rent_frac: Share of the rent by class of hardware.
        best: Whether no other of these plans is both faster and cheaper.
    """

    task_s: float
    usd_per_1000_tasks: float
    rent_frac: dict[str, float]
    best: bool


class LatencyFront(msgspec.Struct, frozen=True, kw_only=True):
    """Plans from fast and dear to slow and cheap.

    Attributes:
        points: By `task_s`, then cost.
        asked: The plan with the limits and deadlines that were asked for.
    """

    points: tuple[LatencyPoint, ...]
    asked: LatencyPoint


def cost_over_latency(
    demand: WorkloadDemand, planned_from: tuple[Catalog, Slo, PlanOptions], tick: Tick
) -> LatencyFront:
    """What does the demand cost when tasks must be faster, or may be slower?

    Every point is a plan made anew, with deadlines of a multiple of what the fastest hardware
    needs, and a part of the allowed gap between tokens. A budget is not kept.

    Args:
        demand: What must be served; its own deadlines count only for `asked`.
        planned_from: Catalogue, limits and options.
        tick: Told of progress.

    Returns:
        The plans, with those marked that no other one beats.

    Raises:
        InfeasiblePlanError: No fleet serves the demand as asked.
    """
    catalog, slo, options = planned_from
    options = msgspec.structs.replace(options, with_baselines=False, budget_usd_per_hour=None)
    total = len(DEADLINE_FACTORS) * len(GAP_FACTORS) + 1
    asked = _point(plan_demand(demand, catalog, slo, options))
    tick(1, total)
    found = [asked]
    free = msgspec.structs.replace(demand, deadlines_s={})
    for number, gap in enumerate(GAP_FACTORS):
        found.extend(_points(free, (catalog, _with_gaps(slo, gap), options)))
        tick(1 + (number + 1) * len(DEADLINE_FACTORS), total)
    points = sorted(_distinct(found), key=lambda one: (one.task_s, one.usd_per_1000_tasks))
    cheapest = math.inf
    marked: list[LatencyPoint] = []
    for point in points:
        # A plan that is cheaper by less than the proven gap is not better.
        best = point.usd_per_1000_tasks < cheapest * (1.0 - options.limits.gap_frac)
        cheapest = min(cheapest, point.usd_per_1000_tasks)
        marked.append(msgspec.structs.replace(point, best=best))
    return LatencyFront(points=tuple(marked), asked=asked)


def _distinct(points: list[LatencyPoint]) -> list[LatencyPoint]:
    """The points without repetitions of time and cost, in order."""
    return list({(one.task_s, one.usd_per_1000_tasks): one for one in points}.values())


def _points(
    demand: WorkloadDemand, planned_from: tuple[Catalog, Slo, PlanOptions]
) -> list[LatencyPoint]:
    try:
        problem = planning_problem(demand, *planned_from)
    except InfeasiblePlanError:
        # Nothing keeps gaps this short.
        return []
    fastest = fastest_tasks_s(problem.table, demand, problem.allowed)
    found: list[LatencyPoint] = []
    for factor in DEADLINE_FACTORS:
        # A hair more than the shortest, so that rounding does not make it impossible.
        deadlines = {agent: factor * s * (1.0 + 1e-9) for agent, s in fastest.items()}
        tight = msgspec.structs.replace(demand, deadlines_s=deadlines)
        try:
            found.append(_point(plan_demand(tight, *planned_from)))
        except InfeasiblePlanError:
            # Stock or a rule leaves no fleet that is this fast.
            continue
    return found


def _with_gaps(slo: Slo, factor: float) -> Slo:
    """The limits with gaps between tokens of this part of those allowed."""
    steps = tuple(
        one if one.itl_s is None else msgspec.structs.replace(one, itl_s=factor * one.itl_s)
        for one in slo.steps
    )
    return msgspec.structs.replace(slo, itl_s=factor * slo.itl_s, steps=steps)


def _point(plan: FleetPlan) -> LatencyPoint:
    classes = {c.name: c for c in plan.classes}
    chains: dict[str, list[float]] = {}
    for choice in plan.choices:
        part_s = choice.share_frac * choice.latency_s * classes[choice.name].per_task
        chains.setdefault(choice.agent, []).append(part_s)
    rates = {
        agent: math.fsum(c.rate_per_s for c in plan.classes if c.agent == agent)
        for agent in sorted(chains)
    }
    total_per_s = math.fsum(rates.values())
    rents = plan.rent_by_hardware()
    total_usd = math.fsum(rents.values())
    return LatencyPoint(
        task_s=math.fsum(rates[a] / total_per_s * math.fsum(chains[a]) for a in rates),
        usd_per_1000_tasks=plan.usd_per_1000_tasks,
        rent_frac={hardware: rent / total_usd for hardware, rent in rents.items()},
        best=False,
    )
