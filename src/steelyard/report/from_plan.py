"""A fleet plan in the words of a report."""

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo, StepSlo
from steelyard.planner.baselines import Baseline
from steelyard.planner.plan import FleetPlan
from steelyard.report.inputs import FleetOption, PlanInputs, PlannedPool, StepChoice


def plan_inputs(plan: FleetPlan, catalog: Catalog) -> PlanInputs:
    """What does a report say of a plan?

    Args:
        plan: The plan, with baselines.
        catalog: The catalogue that it was planned from.

    Returns:
        Plain values. The planned SLO attainment is an aim: prompts and memory up to that quantile
        are provided for, and capacity for the mean load with headroom. No plan proves it; the
        simulation is the check.
    """
    slo = plan.slo
    return PlanInputs(
        tasks_per_s=plan.tasks_per_s,
        rate_factor=plan.options.growth_factor,
        slo=_slo_text(slo),
        slo_attainment_frac=plan.options.quantile,
        plan=_planned_fleet(plan),
        baselines=tuple(_baseline(baseline, catalog) for baseline in plan.baselines),
        choices=tuple(
            StepChoice(
                agent=choice.agent,
                step=choice.step,
                offering=choice.offering,
                hardware=choice.hardware,
                share_frac=choice.share_frac,
                usd_per_1000_steps=choice.usd_per_1000_steps,
                runner_up=choice.runner_up,
                runner_up_hardware=choice.runner_up_hardware,
                runner_up_usd_per_1000_steps=choice.runner_up_usd_per_1000_steps,
                why=choice.why,
            )
            for choice in plan.choices
        ),
    )


def _slo_text(slo: Slo) -> str:
    parts = [_limits_text(slo)]
    parts.extend(f"{one.label()}: {_limits_text(one)}" for one in slo.steps)
    return "; ".join(parts)


def _limits_text(limits: Slo | StepSlo) -> str:
    named = {
        "time to first token": limits.ttft_s,
        "gap between tokens": limits.itl_s,
        "time per output token": limits.tpot_s,
        "whole step": limits.latency_s,
    }
    return ", ".join(f"{name} {value:g} s" for name, value in named.items() if value is not None)


def _planned_fleet(plan: FleetPlan) -> FleetOption:
    return FleetOption(
        name="plan",
        label="plan: cheapest mix",
        usd_per_1000_tasks=plan.usd_per_1000_tasks,
        usd_per_hour=plan.usd_per_hour,
        gap_frac=plan.gap_frac,
        pools=tuple(
            PlannedPool(
                offering=machines.offering,
                provider=machines.provider,
                hardware=machines.hardware,
                machines=machines.machines,
                usd_per_hour=machines.usd_per_hour * machines.machines,
                used_frac=machines.used_frac,
            )
            for machines in plan.machines
        ),
    )


def _baseline(baseline: Baseline, catalog: Catalog) -> FleetOption:
    pools: list[PlannedPool] = []
    for name, count in sorted(baseline.fleet.items()):
        offering = catalog.offering(name)
        pools.append(
            PlannedPool(
                offering=name,
                provider=offering.provider,
                hardware=offering.instance_type.hardware,
                machines=count,
                usd_per_hour=offering.usd_per_hour * count,
            )
        )
    return FleetOption(
        name=baseline.name,
        label=baseline.label,
        usd_per_1000_tasks=baseline.usd_per_1000_tasks,
        usd_per_hour=baseline.usd_per_hour,
        infeasible=baseline.infeasible,
        gap_frac=baseline.gap_frac,
        pools=tuple(pools),
    )
