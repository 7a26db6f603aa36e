"""`steelyard plan --fleet-by-hour`: a fleet that changes by the hour, for `steelyard simulate`."""

from pathlib import Path

import msgspec

from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import Catalog
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.slo import Slo
from steelyard.errors import ConfigError
from steelyard.planner.day import assumed_day
from steelyard.planner.load_curve import scaled
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.pools import pools_of
from steelyard.planner.workload_demand import WorkloadDemand
from steelyard.sim import Renting


class FleetByHour(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet over a day, complete: a simulation needs no other file.

    Attributes:
        pools: Every offering that any hour's plan uses, with its largest number of machines.
        renting: Pool to its machines and bid prices by the hour.
        tasks_per_s: Rate of the busiest hour that was planned for.
        load_by_hour: Load of each hour over the plan's.
    """

    pools: tuple[PoolSpec, ...]
    renting: dict[str, Renting]
    tasks_per_s: float
    load_by_hour: tuple[float, ...]


def write_fleet_by_hour(
    path: Path,
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    day: tuple[float, ...],
) -> None:
    """Plan every hour of a day and write the machines of each.

    Args:
        path: JSON file to write.
        demand: What must be served at a load of 1.
        planned_from: Catalogue, limits and options.
        day: Load of each hour over the demand; empty for the assumed course.

    Raises:
        ConfigError: The file cannot be written.
        InfeasiblePlanError: No fleet serves one of the hours.
    """
    course = tuple(round(load, 9) for load in (day or assumed_day()))
    catalog, slo, options = planned_from
    options = msgspec.structs.replace(options, with_baselines=False, budget_usd_per_hour=None)
    plans: dict[float, FleetPlan] = {}
    loads = sorted(set(course))
    with Stages(1) as stages:
        stages.stage("planning the fleet of every hour")
        for done, load in enumerate(loads, 1):
            plans[load] = plan_demand(scaled(demand, load), catalog, slo, options)
            stages.part(f"{done} of {len(loads)} plans", done / len(loads))
    fleet = fleet_by_hour([plans[load] for load in course], course, catalog)
    try:
        path.write_bytes(msgspec.json.encode(fleet) + b"\n")
    except OSError as error:
        raise ConfigError(f"--fleet-by-hour {path} cannot be written: {error.strerror}") from error


def fleet_by_hour(
    plans: list[FleetPlan], course: tuple[float, ...], catalog: Catalog
) -> FleetByHour:
    """One fleet of the plans of every hour.

    Args:
        plans: One per hour.
        course: Load of each hour.
        catalog: What they were planned from.
    """
    pools: dict[str, PoolSpec] = {}
    for plan in plans:
        for spec in pools_of(plan, catalog):
            pools[spec.name] = _joined(pools.get(spec.name, spec), spec)
    machines = [{one.offering: one for one in plan.machines} for plan in plans]
    renting: dict[str, Renting] = {}
    for name, spec in pools.items():
        here = [hour.get(name) for hour in machines]
        renting[name] = Renting(
            replicas_by_hour=tuple(0 if one is None else one.machines for one in here),
            bid_usd_per_hour_by_hour=tuple(
                spec.usd_per_hour if one is None else one.bid_usd_per_hour for one in here
            ),
        )
    return FleetByHour(
        pools=tuple(pools[name] for name in sorted(pools)),
        renting=renting,
        tasks_per_s=max(plan.tasks_per_s for plan in plans),
        load_by_hour=course,
    )


def _joined(one: PoolSpec, other: PoolSpec) -> PoolSpec:
    """A pool that serves what either of two hours' plans sends to it."""
    curves: dict[str, LlmCurve] = {**one.llm_curves, **other.llm_curves}
    # Models that share a machine share its memory in parts that nobody has said.
    known = (spec for spec in (one, other) if spec.kv_tokens is not None)
    memory = next(known, one) if len(curves) == 1 else None
    return msgspec.structs.replace(
        one,
        replicas=max(one.replicas, other.replicas),
        llm_curves=dict(sorted(curves.items())),
        tool_curve=one.tool_curve or other.tool_curve,
        kv_tokens=None if memory is None else memory.kv_tokens,
        kv_tokens_source="" if memory is None else memory.kv_tokens_source,
    )
