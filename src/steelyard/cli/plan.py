"""`steelyard plan`: the cheapest fleet for a workload or for a plain demand, with proof."""

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings, load_plan_settings
from steelyard.domain.slo import Slo
from steelyard.errors import ConfigError
from steelyard.planner.declared import declared_demand
from steelyard.planner.demand import parse_demand
from steelyard.planner.load_curve import cost_over_load
from steelyard.planner.plan import PlanOptions, plan_demand
from steelyard.planner.plan_options import plan_options
from steelyard.planner.solve import Solution, solve
from steelyard.planner.workload_demand import WorkloadDemand, demand_of
from steelyard.report.from_plan import plan_inputs
from steelyard.report.plan_grids import choice_grid, fleet_grid, machine_grid
from steelyard.report.tables import print_grid
from steelyard.store.workload_file import read_workload


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for.

    Attributes:
        workload: Workload file.
        demand: Plain demand as JSON.
        config: The plan's settings.
        growth_factor: Overrides the settings' one.
        figures: Files of `steelyard measure`, beside the settings' ones.
        allow_predicted: Whether roofline estimates count, whatever the settings say.
        out: Where to write the plan as JSON, too.
        plots: Folder for SVG plots of cost over load; None for none.
        as_json: Whether to print JSON instead of tables.
    """

    workload: Path | None = None
    demand: Path | None = None
    config: Path | None = None
    growth_factor: float | None = None
    figures: tuple[Path, ...] = ()
    allow_predicted: bool = False
    out: Path | None = None
    plots: Path | None = None
    as_json: bool = False


def run_plan(asked: PlanRequest) -> None:
    """Plan, print, and write where asked.

    Args:
        asked: What the command line asks for.

    Raises:
        SteelyardError: A file is wrong, or no fleet serves the demand.
    """
    if asked.demand is not None:
        if asked.workload is not None or asked.config is not None:
            raise ConfigError("--demand FILE stands alone; its JSON holds offers and constraints")
        _plan_plain(asked.demand, asked)
        return
    settings = plan_settings(asked.config, asked.figures, allow_predicted=asked.allow_predicted)
    if asked.growth_factor is not None:
        section = msgspec.structs.replace(settings.demand, growth_factor=asked.growth_factor)
        settings = msgspec.structs.replace(settings, demand=section)
    catalog = planning_catalog(settings)
    options = plan_options(settings, catalog)
    demand = _demand(asked.workload, settings, options)
    plan = plan_demand(demand, catalog, settings.slo, options)
    _write(asked.out, msgspec.json.encode(plan))
    if asked.plots is not None:
        _plot(asked.plots, demand, (catalog, settings.slo, options))
    if asked.as_json:
        print(msgspec.json.encode(plan).decode())
        return
    console = Console(file=sys.stdout)
    inputs = plan_inputs(plan, catalog)
    for grid in (fleet_grid(inputs), machine_grid(inputs), choice_grid(inputs)):
        print_grid(grid, console)
    for choice in plan.choices:
        if choice.origin in ("predicted", "borrowed", "weak"):
            print(f"{choice.origin} figures: {choice.name} on {choice.offering}")


def plan_settings(
    config: Path | None, figures: tuple[Path, ...] = (), *, allow_predicted: bool = False
) -> PlanSettings:
    """Which settings do a file and the options beside it make?

    Args:
        config: The file; None for the defaults.
        figures: Figures files beside the settings' ones.
        allow_predicted: Whether roofline estimates count, whatever the file says.

    Raises:
        ConfigError: The file is wrong.
    """
    settings = PlanSettings() if config is None else load_plan_settings(config)
    if allow_predicted:
        allowed = msgspec.structs.replace(settings.allowed, predicted=True)
        settings = msgspec.structs.replace(settings, allowed=allowed)
    return msgspec.structs.replace(
        settings, figures=(*settings.figures, *(str(path) for path in figures))
    )


def _demand(workload: Path | None, settings: PlanSettings, options: PlanOptions) -> WorkloadDemand:
    if (workload is None) == (not settings.agents):
        raise ConfigError(
            "give either --workload FILE, or [[agents]] in the --config FILE, or --demand FILE"
        )
    if workload is None:
        return declared_demand(settings.agents, options.growth_factor, options.quantile)
    return demand_of(
        read_workload(workload),
        options.growth_factor,
        options.quantile,
        options.duration_s,
        options.peak_window_s,
        options.arrivals,
    )


def _plot(
    folder: Path, demand: WorkloadDemand, planned_from: tuple[Catalog, Slo, PlanOptions]
) -> None:
    from steelyard.report.load_plots import load_plot, mix_plot

    with Stages(1) as stages:
        stages.stage("planning for other loads")
        points = cost_over_load(
            demand,
            planned_from,
            lambda done, total: stages.part(f"{done} of {total} loads", done / total),
        )
    plots = {"cost-over-load.svg": load_plot(points), "mix-over-load.svg": mix_plot(points)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in plots.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--plots {folder} cannot be written: {error}") from error


def _plan_plain(path: Path, asked: PlanRequest) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--demand {path} cannot be read: {error.strerror}") from error
    found = solve(parse_demand(text, str(path)))
    _write(asked.out, msgspec.json.encode(found))
    if asked.as_json:
        print(msgspec.json.encode(found).decode())
    else:
        _print_solution(found)


def _print_solution(found: Solution) -> None:
    for name, count in sorted(found.fleet.items()):
        print(f"{count:6d} x {name}")
    print(
        f"{found.usd_per_hour:.6g} USD/h; no fleet costs less than "
        f"{found.lower_bound_usd_per_hour:.6g} USD/h (gap {found.gap_frac:.4%}, "
        f"{found.solve_s:.2f} s)"
    )


def _write(path: Path | None, text: bytes) -> None:
    if path is None:
        return
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written: {error.strerror}") from error
