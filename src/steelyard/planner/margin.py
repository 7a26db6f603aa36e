"""Does a plan keep its limits on a virtual clock, and how much headroom must it have for that?

Plans are made of means, and keep a headroom by rule. Here the plan is run with the live policy,
Poisson arrivals and the recorded tasks, with slower service if asked, and headroom is raised until
the limits are kept.
"""

from collections.abc import Callable

import msgspec

from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.domain.task import LlmCall
from steelyard.domain.workload import Workload
from steelyard.errors import PlanError
from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.placement.policy import CheapestFeasible
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.plan_checks import MarginCheck
from steelyard.planner.pools import pools_of
from steelyard.planner.workload_demand import WorkloadDemand
from steelyard.sim import Conditions, simulate
from steelyard.sim.synth import scale_workload

# Headrooms that are tried beside the rule's own, in this order.
EXTRA_HEADROOMS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
# Part of the simulated tasks that fills the fleet and does not count.
WARM_UP_FRAC = 0.4

# Told what was just simulated.
Tick = Callable[[MarginCheck], None]


class MarginRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan must show in the simulator.

    Attributes:
        attainment_frac: Share of tasks that meet deadline and budget, and of every kind of LLM
            step inside its limits, that must be reached.
        service_factor: Service times of the simulation over the figures.
        tasks: Tasks to simulate.
        seed: Of the draws and arrivals.
    """

    attainment_frac: float = 0.95
    service_factor: float = 1.2
    tasks: int = 600
    seed: int = 1


def plan_with_margin(
    workload: Workload,
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    rules: MarginRules,
    tick: Tick,
) -> FleetPlan:
    """What is the cheapest fleet of those tried that keeps its limits in the simulator?

    The plan as asked for is run first. If it fails, the figures are taken to be slower by the
    simulation's factor (so that the streams on a machine keep their limits at that speed), then
    headroom is raised step by step. Thin: headroom is the same for all steps.

    Args:
        workload: Recorded tasks, from which the simulated ones are drawn.
        demand: What is planned for.
        planned_from: Catalogue, limits and options.
        rules: What must be shown.
        tick: Told of every simulation.

    Returns:
        The plan, with every simulation in `margin`, its own last.

    Raises:
        PlanError: Not even four times the headroom is enough.
        InfeasiblePlanError: No fleet serves the demand with the margin.
    """
    catalog, slo, options = planned_from
    checks: list[MarginCheck] = []
    slow = max(options.capacity.service_factor, rules.service_factor)
    tries = [(options.capacity.service_factor, 1.0)]
    tries += [(slow, extra) for extra in EXTRA_HEADROOMS if (slow, extra) != tries[0]]
    for service_factor, extra in tries:
        capacity = msgspec.structs.replace(
            options.capacity, service_factor=service_factor, extra_headroom=extra
        )
        tried = msgspec.structs.replace(options, capacity=capacity, with_baselines=False)
        plan = plan_demand(demand, catalog, slo, tried)
        checks.append(check_margin(plan, catalog, workload, rules))
        tick(checks[-1])
        if checks[-1].met and options.with_baselines:
            run = plan.fleet()
            full = msgspec.structs.replace(tried, with_baselines=True)
            plan = plan_demand(demand, catalog, slo, full)
            # A baseline inside the gap may be cheaper than what was run; then it must be run, too.
            if plan.fleet() != run:
                checks.append(check_margin(plan, catalog, workload, rules))
                tick(checks[-1])
        if checks[-1].met:
            return msgspec.structs.replace(plan, margin=tuple(checks))
    last = checks[-1]
    raise PlanError(
        f"in the simulator {last.tasks_met_frac:.1%} of the tasks and {last.steps_met_frac:.1%} of"
        f" the steps {last.worst_step!r} keep their limits with {last.extra_headroom:g} times the"
        f" headroom, not {rules.attainment_frac:.1%}; more machines will not help: loosen the"
        " deadline or the limits, or forbid the slow hardware"
    )


def check_margin(
    plan: FleetPlan, catalog: Catalog, workload: Workload, rules: MarginRules
) -> MarginCheck:
    """Which share of tasks and steps keeps its limits on a virtual clock?

    Args:
        plan: The plan.
        catalog: What it was planned from.
        workload: Recorded tasks, drawn with replacement to arrive at the plan's rate.
        rules: How slow, how many, which seed, and what must be reached.

    Returns:
        The shares. Thin: a single seed; the time per output token stands for the gaps.
    """
    sample = scale_workload(workload, 1.0, rules.tasks, rules.seed, rate_per_s=plan.tasks_per_s)
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}
    conditions = Conditions(bids_usd_per_hour=bids, service_factor=rules.service_factor)
    run = simulate(
        sample, pools_of(plan, catalog), CheapestFeasible(), rules.seed, conditions=conditions
    )
    ledger = Ledger.of(run.events)
    warm_s = sample.tasks[int(WARM_UP_FRAC * (len(sample.tasks) - 1))].arrival_s
    tasks = [task for task in ledger.tasks if task.submitted_s >= warm_s]
    counted = {task.task_id for task in tasks}
    kept = _kept_by_step([a for a in ledger.attempts if a.step.task_id in counted], plan.slo)
    worst = min(kept, key=lambda step: (kept[step], step), default="")
    tasks_met = sum(task.met_slo for task in tasks) / len(tasks)
    steps_met = kept.get(worst, 1.0)
    return MarginCheck(
        planned_service_factor=plan.options.capacity.service_factor,
        extra_headroom=plan.options.capacity.extra_headroom,
        usd_per_hour=plan.usd_per_hour,
        service_factor=rules.service_factor,
        tasks=len(tasks),
        tasks_met_frac=tasks_met,
        steps_met_frac=steps_met,
        worst_step=worst,
        met=min(tasks_met, steps_met) >= rules.attainment_frac,
    )


def _kept_by_step(attempts: list[AttemptRecord], slo: Slo) -> dict[str, float]:
    """Share inside the limits, by agent and name of LLM steps."""
    kept: dict[str, list[bool]] = {}
    for attempt in attempts:
        step = attempt.step
        if isinstance(step.call, LlmCall):
            limit = slo.limits(step.agent, step.name, step.call.model)
            kept.setdefault(f"{step.agent} / {step.name}", []).append(_keeps(attempt, limit))
    return {name: sum(one) / len(one) for name, one in kept.items()}


def _keeps(attempt: AttemptRecord, limit: Slo) -> bool:
    """Did an LLM step succeed inside its limits?"""
    if attempt.outcome != "ok" or attempt.started_s is None:
        return False
    first_s = attempt.usage.start_to_first_token_s
    if first_s is None:
        return True
    ttft_s = attempt.started_s - attempt.placed_s + first_s
    gaps = attempt.usage.output_tokens - 1
    tpot_s = (attempt.usage.wall_s - first_s) / gaps if gaps > 0 else 0.0
    in_time = limit.latency_s is None or attempt.latency_s <= limit.latency_s
    return in_time and ttft_s <= limit.ttft_s and tpot_s <= limit.gap_s * (1.0 + 1e-9)
