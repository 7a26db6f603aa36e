"""The page: one self-contained HTML file that loads nothing, for light and dark screens."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from steelyard.report.format import count, name, per_second, percent, ratio, usd
from steelyard.report.grid import Grid
from steelyard.report.inputs import DemoInputs, FleetOption, Origin
from steelyard.report.plan_grids import (
    choice_grid,
    fleet_grid,
    machine_grid,
    provenance_grid,
    simulation_grid,
)
from steelyard.report.plan_plots import cost_plot, simulation_plot
from steelyard.report.run_grids import (
    pool_grid,
    prediction_grid,
    refusal_grid,
    step_grid,
    task_grid,
)
from steelyard.report.run_plots import latency_plot, prediction_plot, timeline_plot

_MAX_TASK_ROWS = 60


def demo_report(inputs: DemoInputs) -> str:
    """What did the run, the plan and the simulation say? As one page.

    Args:
        inputs: Everything on the page.

    Returns:
        HTML; every name that a user gave is escaped.
    """
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("steelyard.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("demo.html.j2").render(
        title=name(inputs.title),
        made=inputs.made,
        machine=inputs.machine,
        tiles=_tiles(inputs),
        headline=_headline(inputs),
        grids=_grids(inputs),
        plots=_plots(inputs),
        slo="" if inputs.plan is None else inputs.plan.slo,
        rate=_rate(inputs),
        assumptions=inputs.assumptions,
    )


def _tiles(inputs: DemoInputs) -> list[tuple[str, str, Origin]]:
    """Name, value and origin of the figures at the top."""
    ledger = inputs.ledger
    tasks = len(ledger.tasks)
    met = sum(task.met_slo for task in ledger.tasks)
    measured: list[tuple[str, str, Origin]] = [
        ("tasks that met every SLO", f"{count(met)} of {count(tasks)}", "measured"),
        ("SLO attainment", percent(ledger.slo_attainment_frac), "measured"),
        ("goodput", per_second(ledger.goodput_per_s, "tasks"), "measured"),
        ("steps placed", count(len(ledger.attempts)), "measured"),
        ("cost of what was used", usd(ledger.cost_usd), "measured"),
        ("paid, idle time included", usd(ledger.rent_usd), "measured"),
    ]
    if inputs.plan is not None:
        planned = usd(inputs.plan.plan.usd_per_1000_tasks)
        measured.append(("plan, per 1,000 tasks", planned, "planned"))
    if inputs.simulation is not None:
        attained = percent(inputs.simulation.ledger.slo_attainment_frac)
        measured.append(("SLO attainment of the plan", attained, "simulated"))
    return measured


def _headline(inputs: DemoInputs) -> str:
    """How much do the baselines cost more than the plan? One sentence."""
    if inputs.plan is None or not inputs.plan.plan.usd_per_1000_tasks:
        return ""
    plan_usd = inputs.plan.plan.usd_per_1000_tasks
    told = [_against(fleet, plan_usd) for fleet in inputs.plan.baselines]
    start = f"The planned fleet costs {usd(plan_usd)} per 1,000 tasks"
    return f"{start}. Against it: {'; '.join(told)}." if told else f"{start}."


def _against(fleet: FleetOption, plan_usd: float) -> str:
    if fleet.usd_per_1000_tasks is None:
        return f"{name(fleet.label)} is infeasible ({name(fleet.infeasible, 300)})"
    return (
        f"{name(fleet.label)} costs {usd(fleet.usd_per_1000_tasks)}, "
        f"{ratio(fleet.usd_per_1000_tasks / plan_usd)} as much"
    )


def _rate(inputs: DemoInputs) -> str:
    if inputs.plan is None:
        return ""
    factor = ratio(inputs.plan.rate_factor)
    return f"{per_second(inputs.plan.tasks_per_s, 'tasks')}, {factor} the recorded rate"


def _grids(inputs: DemoInputs) -> dict[str, Grid]:
    ledger, plan, simulation = inputs.ledger, inputs.plan, inputs.simulation
    grids = {
        "steps": step_grid(ledger, "measured"),
        "pools": pool_grid(ledger, "measured"),
        "tasks": task_grid(ledger, _MAX_TASK_ROWS),
        "refusals": refusal_grid(ledger),
        "predictions": prediction_grid(ledger),
        "provenance": provenance_grid(inputs.provenance),
    }
    if plan is not None:
        grids["fleets"] = fleet_grid(plan)
        grids["machines"] = machine_grid(plan)
        grids["choices"] = choice_grid(plan)
    if plan is not None and simulation is not None:
        grids["simulation"] = simulation_grid(plan, simulation)
        grids["simulated_steps"] = step_grid(simulation.ledger, "simulated")
    return grids


def _plots(inputs: DemoInputs) -> dict[str, str]:
    ledger, plan, simulation = inputs.ledger, inputs.plan, inputs.simulation
    plots = {
        "latency": latency_plot(ledger),
        "timeline": timeline_plot(ledger),
        "prediction": prediction_plot(ledger),
    }
    if plan is not None:
        plots["cost"] = cost_plot(plan)
    if plan is not None and simulation is not None:
        plots["simulation"] = simulation_plot(plan, simulation)
    return {key: svg for key, svg in plots.items() if svg}
