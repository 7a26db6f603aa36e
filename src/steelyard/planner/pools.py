"""From a plan to the pools that the policy and the simulator know."""

import msgspec

from steelyard.config.catalog_memory import catalog_kv_memory
from steelyard.config.catalog_table import Catalog
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.errors import SteelyardBugError
from steelyard.planner.capacity import planned_curve, planned_fit
from steelyard.planner.plan import FleetPlan, PlannedMachines
from steelyard.planner.workload_demand import StepClass, WorkloadDemand

# Agents' tools keep 0.05-0.24 of a core busy on average (public traces, 2026-11-22), so that about
# this many share one before they wait for it.
_MAX_SLOTS_PER_CORE = 16


def pools_of(plan: FleetPlan, catalog: Catalog) -> tuple[PoolSpec, ...]:
    """Which pools does a plan buy?

    One pool per offering, with a curve for every model, and the tool curve, that the plan sends
    there; streams are capped where the ITL limit is met. Key-value memory is derived where a
    machine serves one model (`catalog_kv_memory`). Thin: the plan's streams are not capped by it,
    the simulator shows where it is short; and an offering that serves a model and tools is one pool
    with both curves, although the machine splits its time; the simulator lets both run at their
    full speed, so such a pool looks better than it is by at most the headroom that the plan keeps.

    Args:
        plan: What is bought.
        catalog: The catalogue that it was planned from.

    Returns:
        Pools sorted by name, each named after its offering.
    """
    demand = WorkloadDemand(
        workload=plan.workload,
        tasks_per_s=plan.tasks_per_s,
        growth_factor=plan.options.growth_factor,
        quantile=plan.options.quantile,
        classes=plan.classes,
    )
    return tuple(_pool(plan, demand, machines, catalog) for machines in plan.machines)


def _slots(curve: ToolCurve, classes: list[StepClass]) -> int:
    """How many tools fit at once: as many as memory holds, since waiting ones need no core."""
    memory_bytes = max([c.memory_bytes for c in classes if c.kind == "tool"] + [1.0])
    fitting = int(curve.memory_bytes / memory_bytes)
    return max(1, min(fitting, int(curve.cores) * _MAX_SLOTS_PER_CORE))


def _pool(
    plan: FleetPlan, demand: WorkloadDemand, machines: PlannedMachines, catalog: Catalog
) -> PoolSpec:
    offering = catalog.offering(machines.offering)
    here = {choice.name for choice in plan.choices if choice.offering == machines.offering}
    classes = [c for c in demand.classes if c.name in here]
    curves: dict[str, LlmCurve] = {}
    for model in sorted({c.model for c in classes if c.kind == "llm"}):
        fit = planned_fit(catalog, offering, demand, model, plan.options.capacity)
        rules = plan.options.capacity
        curve = None if fit is None else planned_curve(fit, demand.classes, plan.slo, rules)
        if curve is None:
            raise SteelyardBugError(
                f"the plan sends {model} to {offering.name}, which cannot serve it; was it planned"
                " from another catalogue?"
            )
        curves[model] = curve
    tools = catalog.tool_curve(offering) if any(c.kind == "tool" for c in classes) else None
    if tools is not None:
        tools = msgspec.structs.replace(tools, slots=_slots(tools, classes))
    # Models that share a machine share its memory in parts that nobody has said.
    memory = catalog_kv_memory(offering, *curves) if len(curves) == 1 else None
    return PoolSpec(
        name=offering.name,
        provider=offering.provider,
        region=offering.region,
        arch=offering.instance_type.arch,
        hardware=offering.instance_type.hardware,
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour,
        replicas=machines.machines,
        llm_curves=curves,
        tool_curve=tools,
        kv_tokens=None if memory is None else memory.tokens,
        kv_tokens_source="" if memory is None else "derived",
    )
