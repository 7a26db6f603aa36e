"""A plan, and simulated runs, as sections of a report."""

import math

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.ledger.run_figures import RunFigures
from steelyard.ledger.shares import shares_of
from steelyard.planner.plan import FleetPlan
from steelyard.report.check_grids import case_grid, hours_grid, margin_grid, price_grid
from steelyard.report.compare_grids import latency_grid, policy_grid, use_grid
from steelyard.report.compare_plots import over_time_plot, policy_plot
from steelyard.report.format import per_second, percent, usd
from steelyard.report.inputs import PlanInputs
from steelyard.report.page import Block, Figure, Section, Source, plot, table
from steelyard.report.plan_grids import choice_grid, fleet_grid, machine_grid
from steelyard.report.plan_notes import plan_notes
from steelyard.report.plan_plots import cost_plot
from steelyard.report.service_sections import provider_section


def plan_sections(plan: FleetPlan, inputs: PlanInputs, where: Source) -> tuple[Section, ...]:
    """What does a plan say?

    Args:
        plan: The plan.
        inputs: The same in the words of a report.
        where: Its file.

    Returns:
        The fleet with its cost, then its providers.
    """
    rents = {one.provider: 0.0 for one in plan.machines}
    for one in plan.machines:
        rents[one.provider] += one.machines * one.usd_per_hour
    cap = plan.options.constraints.provider_share_cap
    return (
        _fleet_section(plan, inputs, where),
        _renamed(provider_section(shares_of(rents), cap, where), "plan-", "of the plan"),
    )


def _renamed(section: Section, before: str, after: str) -> Section:
    return Section(
        key=f"{before}{section.key}",
        title=f"{section.title} {after}",
        lead=section.lead,
        figures=section.figures,
        blocks=section.blocks,
    )


def _fleet_section(plan: FleetPlan, inputs: PlanInputs, where: Source) -> Section:
    blocks: list[Block] = [
        table(fleet_grid(inputs), where),
        plot(
            cost_plot(inputs),
            "Cost in USD per 1,000 tasks of the plan and of its baselines, split by hardware.",
            where,
        ),
        *(table(one, where) for one in (machine_grid(inputs), choice_grid(inputs))),
        table(hours_grid(plan.hours), where),
    ]
    if plan.margin:
        blocks.append(table(margin_grid(plan.margin), where.as_origin("simulated")))
    if plan.sensitivity is not None:
        blocks.append(table(price_grid(plan.sensitivity), where))
        blocks.append(table(case_grid(plan.sensitivity, plan.usd_per_hour), where))
    bound = (
        f"For {per_second(plan.tasks_per_s, 'tasks')}; {inputs.slo} (declared). No fleet keeps the"
        f" rules for less than {usd(plan.lower_bound_usd_per_hour)} per hour, so the plan is at"
        f" most {percent(plan.gap_frac)} above the best."
    )
    lead = (
        bound,
        *(f"{note[:1].upper()}{note[1:]}." for note in plan_notes(plan)),
    )
    return Section(
        key="plan", title="Plan", lead=lead, figures=plan_figures(plan, where), blocks=tuple(blocks)
    )


def plan_figures(plan: FleetPlan, where: Source) -> tuple[Figure, ...]:
    """The numbers of a plan: cost, baselines, GPU-hours freed, energy at most."""
    per_hour = plan.tasks_per_s * SECONDS_PER_HOUR
    told: list[tuple[str, str, float | None, str]] = [
        ("planned rate", "", plan.tasks_per_s, "tasks/s"),
        ("planned cost per task", "plan", plan.usd_per_1000_tasks / 1000.0, "USD"),
        ("planned cost per hour", "plan", plan.usd_per_hour, "USD"),
        ("gap to the proven bound", "plan", plan.gap_frac, "frac"),
    ]
    told += [
        (
            "planned cost per task",
            one.label,
            None if one.usd_per_1000_tasks is None else one.usd_per_1000_tasks / 1000.0,
            "USD",
        )
        for one in plan.baselines
    ]
    told += [
        ("GPU-hours freed per hour against all GPU", one.fleet, one.gpu_hours_freed, "GPU-hours")
        for one in plan.hours
    ]
    if plan.watts and per_hour:
        kwh = plan.watts / per_hour
        told.append(("energy per 1,000 tasks, all cores busy: at most", "plan", kwh, "kWh"))
    told.append(("SLO attainment aimed at", "plan", plan.options.quantile, "frac"))
    return tuple(
        Figure(name=what, about=about, value=value, unit=unit, where=where)
        for what, about, value, unit in told
    )


def simulation_section(runs: dict[str, RunFigures], policy: str, where: Source) -> Section:
    """What did simulated runs come to?

    Args:
        runs: Policy to its figures.
        policy: The one that was asked for first.
        where: Their file.

    Returns:
        The section.
    """
    mine = runs[policy]
    told = [
        figure
        for name, run in runs.items()
        for figure in run_figures_told(run, name, where)
    ]  # fmt: skip
    return Section(
        key="simulation",
        title="Simulation",
        lead=_one(
            f"{mine.tasks:,} tasks on a virtual clock, with the live system's policy, bookkeeping"
            f" and cost function. Tables of one policy are of {policy}."
        ),
        figures=tuple(told),
        blocks=(
            table(policy_grid(runs), where),
            plot(
                policy_plot(runs) if len(runs) > 1 else "",
                "SLO attainment in percent of tasks, and used cost in USD per 1,000 tasks.",
                where,
            ),
            table(latency_grid(mine), where),
            table(use_grid(mine), where),
            plot(
                over_time_plot(mine),
                "The run over time in seconds: steps running and waiting, replicas, USD per hour,"
                " latency in seconds, tasks that ended.",
                where,
            ),
        ),
    )


def _one(line: str) -> tuple[str, ...]:
    return (line,)


def run_figures_told(run: RunFigures, about: str, where: Source) -> tuple[Figure, ...]:
    """The numbers that runs, plans and simulations are compared by.

    Args:
        run: Figures of a run.
        about: Its name.
        where: Its file.
    """
    thousand = 1000.0 / run.tasks if run.tasks else math.nan
    energy = run.energy_kwh
    told: tuple[tuple[str, float | None, str], ...] = (
        ("tasks ended", float(run.tasks), "count"),
        ("paid per task", run.usd_per_task, "USD"),
        ("used per task", run.used_usd_per_task, "USD"),
        ("SLO attainment", run.slo_attainment_frac, "frac"),
        ("goodput", run.goodput_per_s, "tasks/s"),
        ("refused steps", float(run.refused), "count"),
        ("GPU-hours per 1,000 tasks", thousand * run.gpu_hours, "GPU-hours"),
        ("energy per 1,000 tasks, estimate", None if energy is None else thousand * energy, "kWh"),
    )
    return tuple(
        Figure(name=what, about=about, value=value, unit=unit, where=where)
        for what, value, unit in told
    )
