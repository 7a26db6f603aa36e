"""`steelyard demo`, from start to end: what is run, printed and written."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.demo.live import MODEL, local_pools, run_agents
from steelyard.cli.demo.loop import (
    RATE_FACTOR,
    SEED,
    SIMULATED_POLICY,
    SimulatedPlan,
    plan_demo,
    simulate_demo,
)
from steelyard.cli.demo.summary import demo_json, write_artefacts
from steelyard.cli.progress import Stages
from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.environment import machine_description
from steelyard.config.pool_settings import PoolSettings
from steelyard.config.pool_specs import local_offering
from steelyard.config.settings import load_settings
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError, TaskError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.planner.plan import FleetPlan
from steelyard.report.format import per_second, percent, usd
from steelyard.report.from_plan import plan_inputs
from steelyard.report.inputs import DemoInputs, Provenance, SimulationInputs
from steelyard.report.plan_grids import choice_grid, fleet_grid, simulation_grid
from steelyard.report.run_grids import step_grid
from steelyard.report.tables import print_grid
from steelyard.store.sqlite_log import read_events

_STAGES = 8
_COMMAND = "steelyard demo"


def run_demo(folder: Path, config: Path | None, *, as_json: bool) -> None:
    """Run the demo.

    Args:
        folder: Where the artefacts go; made if missing.
        config: Pools of the user's beside the local ones; None for none.
        as_json: Print one JSON object instead of tables.

    Raises:
        SteelyardError: Something cannot be started, or no task succeeded.
    """
    pools = _pools(config)
    catalog = load_catalog()
    _make_folder(folder)
    log_path = folder / "events.db"
    with Stages(_STAGES) as stages:
        run_agents(
            log_path,
            pools,
            catalog,
            stages.stage,
            lambda done, total: stages.part(f"{done} of {total} tasks done", done / total),
        )
        stages.stage("folding the log into ledger and workload")
        ledger = Ledger.of(read_events(log_path))
        workload = workload_of(ledger, "demo", str(log_path))
        if len(workload.tasks) < 2:
            raise TaskError(_why_nothing_ran(ledger))
        stages.stage(f"planning the cheapest fleet for {RATE_FACTOR:,.0f} times the rate")
        plan = plan_demo(workload, ledger.span_s, catalog)
        stages.stage("simulating the plan under the same policy")
        simulated = simulate_demo(
            workload, plan, catalog, lambda frac: stages.part("simulating the plan", frac)
        )
        inputs = _inputs(ledger, plan, simulated, catalog)
        stages.stage(f"writing {folder}/")
        result = demo_json(ledger, plan, simulated, catalog)
        write_artefacts(folder, workload, plan, result, inputs)
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        _print(inputs, ledger, workload, folder)


def _pools(config: Path | None) -> dict[str, PoolSettings]:
    pools = local_pools()
    if config is None:
        return pools
    for name, pool in load_settings(config).pools.items():
        if name in pools:
            raise ConfigError(
                f"configuration {config}: pools.{name} has the name of one of the demo's own "
                "pools; give it another"
            )
        pools[name] = pool
    return pools


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be made: {error.strerror}") from error


def _why_nothing_ran(ledger: Ledger) -> str:
    codes = sorted({task.error_code for task in ledger.tasks if task.error_code})
    return (
        f"{len(ledger.tasks)} tasks ran and fewer than two succeeded "
        f"(errors: {', '.join(codes) or 'none'}); there is nothing to plan for"
    )


def _inputs(
    ledger: Ledger, plan: FleetPlan, simulated: SimulatedPlan, catalog: Catalog
) -> DemoInputs:
    offering = local_offering(catalog, None)
    return DemoInputs(
        title="Steelyard demo",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{machine_description()}; priced as {offering.name}",
        ledger=ledger,
        plan=plan_inputs(plan, catalog),
        simulation=SimulationInputs(
            ledger=simulated.ledger,
            usd_per_1000_tasks=simulated.usd_per_1000_tasks,
            seed=SEED,
            policy=SIMULATED_POLICY,
        ),
        assumptions=_assumptions(plan, simulated),
        provenance=(
            Provenance(
                figure="Price of this machine",
                value=f"{offering.usd_per_hour} USD/h",
                origin="planned",
                source=f"list price of {offering.name}, {offering.price_date}",
                command=_COMMAND,
            ),
            Provenance(
                figure="Tasks and steps of the run",
                value=f"{len(ledger.tasks)} tasks, {len(ledger.attempts)} attempts",
                origin="measured",
                source="events.db beside this page",
                command=_COMMAND,
            ),
            Provenance(
                figure="Prices and speeds behind the plan",
                value=f"{len(catalog.offerings)} offerings",
                origin="planned",
                source="packaged catalogue; SpareCores/sc-inspector-data 804d3c71, 2026-08-22, "
                "and providers' list prices of 2026",
                command="scripts/build_catalog.py",
            ),
        ),
    )


def _assumptions(plan: FleetPlan, simulated: SimulatedPlan) -> tuple[str, ...]:
    rate = (
        f"The plan is for {plan.tasks_per_s:,.0f} tasks/s, {RATE_FACTOR:,.0f} times what was "
        "recorded; prices are on-demand list prices."
    )
    engines = (
        "Curves of cloud machines are of vLLM with bf16 weights; this machine ran OpenVINO with "
        "4-bit weights."
    )
    sample = (
        f"The simulation covers {simulated.arrivals_s:.1f} s of arrivals "
        f"({len(simulated.ledger.tasks):,} tasks), drawn from the recording."
    )
    return (
        f"The model is {MODEL}; it was chosen because it installs everywhere, not for its answers.",
        "This machine is priced as a cloud machine of its architecture; each core is priced once.",
        rate,
        engines,
        sample,
    )


def _print(inputs: DemoInputs, ledger: Ledger, workload: Workload, folder: Path) -> None:
    console = Console(file=sys.stdout)
    print_grid(step_grid(ledger, "measured"), console)
    met = sum(task.met_slo for task in ledger.tasks)
    console.out(
        f"goodput {per_second(ledger.goodput_per_s, 'tasks')}, SLO attainment "
        f"{percent(ledger.slo_attainment_frac)} ({met} of {len(ledger.tasks)} tasks), "
        f"{usd(ledger.cost_usd)} used of {usd(ledger.rent_usd)} rented\n",
        highlight=False,
    )
    if inputs.plan is not None:
        print_grid(fleet_grid(inputs.plan), console)
        print_grid(choice_grid(inputs.plan), console)
        if inputs.simulation is not None:
            print_grid(simulation_grid(inputs.plan, inputs.simulation), console)
    console.out(
        f"{len(workload.tasks)} tasks recorded. Open {folder / 'report.html'}; beside it lie "
        "events.db, workload.parquet, plan.json and simulation.json.",
        highlight=False,
    )
