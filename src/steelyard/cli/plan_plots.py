"""The plots of `steelyard plan --plots`: over load, over latency, over a day."""

from pathlib import Path

from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import Catalog
from steelyard.domain.slo import Slo
from steelyard.errors import ConfigError
from steelyard.planner.day import plan_day
from steelyard.planner.latency_front import cost_over_latency
from steelyard.planner.load_curve import cost_over_load
from steelyard.planner.plan import PlanOptions
from steelyard.planner.workload_demand import WorkloadDemand


def write_plots(
    folder: Path,
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    day: tuple[float, ...],
) -> None:
    """Plan for other loads, latencies and hours, and draw it.

    Args:
        folder: Where the SVG files go; made if it is not there.
        demand: What must be served.
        planned_from: Catalogue, limits and options.
        day: Load of each hour over the planned one; empty for the assumed course.

    Raises:
        ConfigError: The folder cannot be written.
        InfeasiblePlanError: No fleet serves the demand.
    """
    # Plotting takes half a second to import.
    from steelyard.report.front_plots import day_plot, latency_plot
    from steelyard.report.load_plots import load_plot, mix_plot

    with Stages(3) as stages:

        def tick(done: int, total: int) -> None:
            stages.part(f"{done} of {total} plans", done / total)

        stages.stage("planning for other loads")
        points = cost_over_load(demand, planned_from, tick)
        stages.stage("planning for other deadlines")
        front = cost_over_latency(demand, planned_from, tick)
        stages.stage("planning for the hours of a day")
        hours = plan_day(demand, planned_from, day, tick)
    plots = {
        "cost-over-load.svg": load_plot(points),
        "mix-over-load.svg": mix_plot(points),
        "cost-over-latency.svg": latency_plot(front),
        "mix-over-day.svg": day_plot(hours),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in plots.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--plots {folder} cannot be written: {error}") from error
