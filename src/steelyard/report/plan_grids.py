"""Tables of a plan: fleets and their cost, machines, which steps go where, the simulation."""

import numpy as np

from steelyard.report.alike import per_second_alike, usd_alike
from steelyard.report.format import (
    NONE,
    count,
    name,
    percent,
    ratio,
    seconds,
    short_offering,
)
from steelyard.report.grid import Grid, columns
from steelyard.report.inputs import (
    FleetOption,
    PlanInputs,
    Provenance,
    SimulationInputs,
    StepChoice,
)


def fleet_grid(plan: PlanInputs) -> Grid:
    """What does the plan cost beside the baselines?

    Args:
        plan: The plan and its baselines.

    Returns:
        One row per fleet; an infeasible one says why in words.
    """
    base_usd = plan.plan.usd_per_1000_tasks
    fleets = (plan.plan, *plan.baselines)
    return Grid(
        title="The plan beside its baselines",
        origin="planned",
        columns=columns(
            ("fleet",),
            ("per 1,000 tasks", "per hour", "against the plan", "gap at most"),
            ("machines",),
        ),
        rows=tuple(
            _fleet_row(one, base_usd, money)
            for one, *money in zip(
                fleets,
                usd_alike([one.usd_per_1000_tasks for one in fleets]),
                usd_alike([one.usd_per_hour for one in fleets]),
                strict=True,
            )
        ),
        note=(
            "Costs are list prices of whole machines, idle time included. The gap is the proven "
            "distance to the cheapest fleet possible in the planner's model."
        ),
    )


def _fleet_row(fleet: FleetOption, base_usd: float | None, money: list[str]) -> tuple[str, ...]:
    if fleet.usd_per_1000_tasks is None:
        return (name(fleet.label), *(NONE,) * 4, f"infeasible: {name(fleet.infeasible, 300)}")
    bought = [
        f"{count(pool.machines)} x {short_offering(pool.offering)}"
        for pool in fleet.pools
        if pool.machines
    ]
    against = fleet.usd_per_1000_tasks / base_usd if base_usd else None
    return (
        name(fleet.label),
        *money,
        ratio(against),
        percent(fleet.gap_frac),
        ", ".join(bought) or "none",
    )


def machine_grid(plan: PlanInputs) -> Grid:
    """Which machines does the plan rent?

    Args:
        plan: The plan.

    Returns:
        One row per offering.
    """
    rows = [
        (
            name(pool.offering),
            name(pool.provider),
            pool.hardware,
            count(pool.machines),
            rent,
            percent(pool.used_frac),
        )
        for pool, rent in zip(
            plan.plan.pools, usd_alike([one.usd_per_hour for one in plan.plan.pools]), strict=True
        )
    ]
    return Grid(
        title="Machines of the plan",
        origin="planned",
        columns=columns(
            ("offering", "provider", "hardware"), ("machines", "rent per hour", "used")
        ),
        rows=tuple(rows),
    )


def choice_grid(plan: PlanInputs) -> Grid:
    """Which steps go to which hardware, and why did the runner-up lose?

    Args:
        plan: The plan.

    Returns:
        One row per kind of step and offering.
    """
    here = [one.usd_per_1000_steps for one in plan.choices]
    # Both columns in one unit: they are compared with each other.
    money = usd_alike([*here, *(one.runner_up_usd_per_1000_steps for one in plan.choices)])
    costs = zip(money[: len(here)], money[len(here) :], strict=True)
    return Grid(
        title="Which steps go to which hardware, and why",
        origin="planned",
        columns=columns(
            ("step", "agent", "goes to", "runner-up"),
            ("share of steps", "per 1,000 steps", "runner-up, per 1,000"),
            ("why the runner-up lost",),
        ),
        rows=tuple(_choice_row(one, pair) for one, pair in zip(plan.choices, costs, strict=True)),
    )


def _choice_row(choice: StepChoice, costs: tuple[str, ...]) -> tuple[str, ...]:
    runner_up = NONE
    if choice.runner_up:
        runner_up = f"{choice.runner_up_hardware}: {short_offering(choice.runner_up)}"
    return (
        name(choice.step),
        name(choice.agent),
        f"{choice.hardware}: {short_offering(choice.offering)}",
        runner_up,
        percent(choice.share_frac),
        *costs,
        name(choice.why, 300) or "no other offering can run the step",
    )


def simulation_grid(plan: PlanInputs, simulation: SimulationInputs) -> Grid:
    """Did the simulated fleet keep what the plan promised?

    Args:
        plan: The plan.
        simulation: Its simulated run.

    Returns:
        One row per promise: planned beside simulated.
    """
    ledger = simulation.ledger
    arrivals_s = [task.submitted_s for task in ledger.tasks] or [0.0]
    span_s = max(arrivals_s) - min(arrivals_s)
    arrived_per_s = len(ledger.tasks) / span_s if span_s > 0.0 else None
    took_s = [task.finished_s - task.submitted_s for task in ledger.tasks] or [0.0]
    rows = (
        (
            "SLO attainment",
            f"aim: {percent(plan.slo_attainment_frac)}",
            percent(ledger.slo_attainment_frac),
        ),
        (
            "cost per 1,000 tasks",
            *usd_alike((plan.plan.usd_per_1000_tasks, simulation.usd_per_1000_tasks)),
        ),
        ("arrivals", *per_second_alike((plan.tasks_per_s, arrived_per_s), "tasks")),
        ("task duration p50", NONE, seconds(float(np.percentile(took_s, 50)))),
        ("task duration p95", NONE, seconds(float(np.percentile(took_s, 95)))),
    )
    return Grid(
        title="The plan against its simulation",
        origin=None,
        columns=columns(("promise",), ("planned", "simulated")),
        rows=rows,
        note=(
            f"{count(len(ledger.tasks))} tasks on a virtual clock, seed {simulation.seed}, policy "
            f"{name(simulation.policy)}. The aim is the quantile of prompts and memory that the "
            "plan provides for; only the simulation checks whole tasks. The simulated cost is the "
            "fleet's rent over the drawn arrivals."
        ),
    )


def provenance_grid(provenance: tuple[Provenance, ...]) -> Grid:
    """Where does each figure come from?

    Args:
        provenance: The figures.

    Returns:
        One row per figure.
    """
    rows = [
        (name(one.figure, 200), name(one.value), one.origin, name(one.source, 300), one.command)
        for one in provenance
    ]
    return Grid(
        title="Where the figures come from",
        origin=None,
        columns=columns(("figure", "value", "origin"), (), ("source", "produced by")),
        rows=tuple(rows),
    )
