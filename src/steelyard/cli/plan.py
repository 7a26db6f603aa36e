"""`steelyard plan`: the cheapest fleet for a workload or for a plain demand, with proof."""

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.config.catalog_table import load_catalog
from steelyard.domain.slo import Slo
from steelyard.errors import ConfigError
from steelyard.planner.demand import parse_demand
from steelyard.planner.plan import PlanOptions, plan_fleet
from steelyard.planner.solve import Solution, solve
from steelyard.report.from_plan import plan_inputs
from steelyard.report.plan_grids import choice_grid, fleet_grid, machine_grid
from steelyard.report.tables import print_grid
from steelyard.store.workload_file import read_workload


def run_plan(
    workload: Path | None, demand: Path | None, growth_factor: float, *, as_json: bool
) -> None:
    """Plan and print.

    Args:
        workload: Workload file; exactly one of the two is given.
        demand: Offers, buckets and capacities as JSON.
        growth_factor: Rate to plan for, over the workload's own.
        as_json: Print JSON instead of tables.

    Raises:
        SteelyardError: A file is wrong, or no fleet serves the demand.
    """
    if (workload is None) == (demand is None):
        raise ConfigError("give either --workload FILE or --demand FILE")
    if demand is not None:
        _plan_demand(demand, as_json=as_json)
    elif workload is not None:
        _plan_workload(workload, growth_factor, as_json=as_json)


def _plan_demand(path: Path, *, as_json: bool) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--demand {path} cannot be read: {error.strerror}") from error
    found = solve(parse_demand(text, str(path)))
    if as_json:
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


def _plan_workload(path: Path, growth_factor: float, *, as_json: bool) -> None:
    catalog = load_catalog()
    options = PlanOptions(growth_factor=growth_factor)
    plan = plan_fleet(read_workload(path), catalog, Slo(), options)
    if as_json:
        print(msgspec.json.encode(plan).decode())
        return
    console = Console(file=sys.stdout)
    inputs = plan_inputs(plan, catalog)
    for grid in (fleet_grid(inputs), machine_grid(inputs), choice_grid(inputs)):
        print_grid(grid, console)
