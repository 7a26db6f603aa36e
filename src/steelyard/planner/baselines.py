"""What would simpler fleets cost under the same rules? All-GPU, all-Arm, all-x86, one provider."""

import msgspec

from steelyard.errors import PlanError
from steelyard.planner.demand import Constraints
from steelyard.planner.fitness_table import FitnessTable
from steelyard.planner.obstacles import main_obstacle
from steelyard.planner.search_limits import SearchLimits
from steelyard.planner.solve import solve

LABELS = {"gpu": "all GPU", "arm": "all Arm", "x86": "all x86"}


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A simpler fleet for the same demand.

    Attributes:
        name: `all-gpu`, `all-arm`, `all-x86` or `single-provider`.
        label: The same for people.
        usd_per_hour: Price; None if there is no such fleet.
        usd_per_1000_tasks: The same per 1,000 tasks; None if there is no such fleet.
        gap_frac: Proven distance to the cheapest fleet of its sort; None if there is none.
        fleet: Machines per offering.
        infeasible: Why there is none; empty otherwise.
    """

    name: str
    label: str
    usd_per_hour: float | None
    usd_per_1000_tasks: float | None
    gap_frac: float | None
    fleet: dict[str, int]
    infeasible: str


def plan_baselines(
    table: FitnessTable,
    allowed: list[int],
    constraints: Constraints,
    limits: SearchLimits,
    tasks_per_hour: float,
) -> tuple[Baseline, ...]:
    """What do fleets of one class of hardware, or of one provider, cost?

    Args:
        table: Step classes against offerings.
        allowed: Indices of the offerings of the plan itself.
        constraints: The rules of the plan.
        limits: How hard to look.
        tasks_per_hour: Tasks that the fleet serves.

    Returns:
        All-GPU, all-Arm, all-x86, and the cheapest of the single providers.
    """
    plans: list[Baseline] = []
    for hardware, label in LABELS.items():
        some = [o for o in allowed if table.offerings[o].instance_type.hardware == hardware]
        plans.append(_plan(table, some, constraints, limits, (f"all-{hardware}", label)))
    singles = [
        _plan(
            table,
            [o for o in allowed if table.offerings[o].provider == provider],
            constraints,
            limits,
            ("single-provider", f"only {provider}"),
        )
        for provider in sorted({table.offerings[o].provider for o in allowed})
    ]
    priced = [one for one in singles if one.usd_per_hour is not None]
    plans.append(min(priced, key=lambda one: one.usd_per_hour or 0.0) if priced else singles[0])
    return tuple(
        one
        if one.usd_per_hour is None
        else msgspec.structs.replace(
            one, usd_per_1000_tasks=1000.0 * one.usd_per_hour / tasks_per_hour
        )
        for one in plans
    )


def cheapest_fleet(baselines: tuple[Baseline, ...]) -> dict[str, int] | None:
    """Which baseline's machines cost least? None if there is no such fleet."""
    priced = [one for one in baselines if one.usd_per_hour is not None]
    if not priced:
        return None
    return min(priced, key=lambda one: (one.usd_per_hour or 0.0, one.name)).fleet


def _plan(
    table: FitnessTable,
    some: list[int],
    constraints: Constraints,
    limits: SearchLimits,
    names: tuple[str, str],
) -> Baseline:
    name, label = names
    reason = _obstacle(table, some)
    if not reason:
        try:
            found = solve(table.plain(some, constraints), limits)
        except PlanError as error:
            reason = str(error)
        else:
            return Baseline(
                name=name,
                label=label,
                usd_per_hour=found.usd_per_hour,
                usd_per_1000_tasks=None,
                gap_frac=found.gap_frac,
                fleet=found.fleet,
                infeasible="",
            )
    return Baseline(
        name=name,
        label=label,
        usd_per_hour=None,
        usd_per_1000_tasks=None,
        gap_frac=None,
        fleet={},
        infeasible=reason,
    )


def _obstacle(table: FitnessTable, some: list[int]) -> str:
    """Why can these offerings alone not run everything? Empty if they can."""
    if not some:
        return "no such offering is allowed"
    for b, step in enumerate(table.classes):
        if all(table.cells[o][b].machine_s is None for o in some):
            obstacle = main_obstacle(table.cells[o][b] for o in some)
            return f"none can run {step.name}; most often: {obstacle}"
    return ""
