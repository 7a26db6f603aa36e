"""`steelyard plan`: the cheapest fleet for a workload or for a plain demand, with proof."""

import itertools
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.day_fleet import write_fleet_by_hour
from steelyard.cli.outputs import check_file, check_folder
from steelyard.cli.plan_plots import write_plots
from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import Catalog
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings, load_plan_settings
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError
from steelyard.planner.declared import declared_demand
from steelyard.planner.demand import parse_demand
from steelyard.planner.margin import EXTRA_HEADROOMS, MarginRules, plan_with_margin
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand
from steelyard.planner.plan_options import plan_options
from steelyard.planner.sensitivity import sensitivity
from steelyard.planner.solve import Solution, solve
from steelyard.planner.workload_demand import WorkloadDemand, demand_of
from steelyard.report.check_grids import case_grid, hours_grid, margin_grid, price_grid
from steelyard.report.from_plan import plan_inputs
from steelyard.report.plan_grids import choice_grid, fleet_grid, machine_grid
from steelyard.report.plan_notes import plan_notes
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
        plots: Folder for SVG plots; None for none.
        fleet_by_hour: Where to write the machines of every hour of a day; None for nowhere.
        sensitivity: Whether to plan anew for other prices, loads and cached shares.
        simulated_headroom: Whether to raise headroom until a simulation keeps the limits.
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
    fleet_by_hour: Path | None = None
    sensitivity: bool = False
    simulated_headroom: bool = False
    as_json: bool = False


def run_plan(asked: PlanRequest) -> None:
    """Plan, print, and write where asked.

    Args:
        asked: What the command line asks for.

    Raises:
        SteelyardError: A file is wrong, or no fleet serves the demand.
    """
    check_file("--out", asked.out)
    check_file("--fleet-by-hour", asked.fleet_by_hour)
    check_folder("--plots", asked.plots)
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
    workload = None if asked.workload is None else read_workload(asked.workload)
    demand = _demand(workload, settings, options)
    rules = _margin_rules(settings, asked)
    if rules is None:
        plan = plan_demand(demand, catalog, settings.slo, options)
    else:
        plan = _plan_with_margin(workload, demand, (catalog, settings.slo, options), rules)
    if asked.sensitivity:
        plan = _with_sensitivity(plan, demand, catalog)
    _write(asked.out, msgspec.json.encode(plan))
    if asked.plots is not None:
        write_plots(asked.plots, demand, (catalog, settings.slo, plan.options), settings.demand.day)
    if asked.fleet_by_hour is not None:
        planned_from = (catalog, settings.slo, plan.options)
        write_fleet_by_hour(asked.fleet_by_hour, demand, planned_from, settings.demand.day)
    if asked.as_json:
        print(msgspec.json.encode(plan).decode())
    else:
        _print_plan(plan, catalog)


def _print_plan(plan: FleetPlan, catalog: Catalog) -> None:
    console = Console(file=sys.stdout)
    inputs = plan_inputs(plan, catalog)
    grids = [fleet_grid(inputs), machine_grid(inputs), choice_grid(inputs), hours_grid(plan.hours)]
    if plan.margin:
        grids.append(margin_grid(plan.margin))
    if plan.sensitivity is not None:
        grids.append(price_grid(plan.sensitivity))
        grids.append(case_grid(plan.sensitivity, plan.usd_per_hour))
    for grid in grids:
        print_grid(grid, console)
    for line in plan_notes(plan):
        print(line)


def _margin_rules(settings: PlanSettings, asked: PlanRequest) -> MarginRules | None:
    headroom = settings.headroom
    wanted = headroom.simulated_attainment_frac
    if wanted is None and not asked.simulated_headroom:
        return None
    return MarginRules(
        attainment_frac=MarginRules().attainment_frac if wanted is None else wanted,
        service_factor=headroom.simulated_service_factor,
        tasks=headroom.simulated_tasks,
        seed=headroom.simulated_seed,
    )


def _plan_with_margin(
    workload: Workload | None,
    demand: WorkloadDemand,
    planned_from: tuple[Catalog, Slo, PlanOptions],
    rules: MarginRules,
) -> FleetPlan:
    if workload is None:
        raise ConfigError(
            "simulated headroom needs recorded tasks: give --workload FILE, or leave it out"
        )
    with Stages(1) as stages:
        stages.stage(f"simulating fleets at {rules.service_factor:g} times the service times")
        tried = len(EXTRA_HEADROOMS) + 1
        done = itertools.count(1)
        return plan_with_margin(
            workload,
            demand,
            planned_from,
            rules,
            lambda check: stages.part(
                f"{check.usd_per_hour:.4g} USD/h: {check.tasks_met_frac:.1%} of tasks",
                next(done) / tried,
            ),
        )


def _with_sensitivity(plan: FleetPlan, demand: WorkloadDemand, catalog: Catalog) -> FleetPlan:
    with Stages(1) as stages:
        stages.stage("planning anew for other prices, loads and cached shares")
        found = sensitivity(
            plan,
            demand,
            catalog,
            lambda done, total: stages.part(f"{done} of {total}", done / total),
        )
    return msgspec.structs.replace(plan, sensitivity=found)


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


def _demand(
    workload: Workload | None, settings: PlanSettings, options: PlanOptions
) -> WorkloadDemand:
    if (workload is None) == (not settings.agents):
        raise ConfigError(
            "give either --workload FILE, or [[agents]] in the --config FILE, or --demand FILE"
        )
    if workload is None:
        return declared_demand(settings.agents, options.growth_factor, options.quantile)
    return demand_of(
        workload,
        options.growth_factor,
        options.quantile,
        options.duration_s,
        options.peak_window_s,
        options.arrivals,
    )


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
