"""`steelyard simulate`: a workload through a planned fleet, on a virtual clock."""

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.progress import Stages
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError, WorkloadError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.summary import summarize_steps
from steelyard.placement.baselines import policy_named
from steelyard.planner.plan import FleetPlan
from steelyard.planner.pools import pools_of
from steelyard.report.run_grids import pool_grid, step_grid
from steelyard.report.tables import print_grid
from steelyard.sim import Conditions, simulate
from steelyard.sim.synth import scale_workload
from steelyard.store.workload_file import read_workload


def run_simulate(
    paths: tuple[Path, Path],
    policy: str,
    draw: tuple[int, int],
    settings: PlanSettings,
    *,
    as_json: bool,
) -> None:
    """Simulate and print.

    Args:
        paths: Workload file, and a plan as `steelyard plan --out` or the demo wrote it.
        policy: Name of the policy.
        draw: Number of tasks drawn from the workload to arrive at the plan's rate, and the seed.
        settings: What the plan was made with, for its catalogue.
        as_json: Print JSON instead of tables.

    Raises:
        SteelyardError: A file is wrong, or the policy is unknown.
    """
    workload_path, plan_path = paths
    tasks, seed = draw
    chosen = policy_named(policy)
    workload = read_workload(workload_path)
    plan = read_plan(plan_path)
    sample = _at_planned_rate(workload, plan, tasks, seed)
    bids = {machines.offering: machines.bid_usd_per_hour for machines in plan.machines}
    pools = pools_of(plan, planning_catalog(settings))
    with Stages(1) as stages:
        stages.stage(f"simulating {tasks} tasks under {policy}")
        span_s = sample.tasks[-1].arrival_s
        run = simulate(
            sample,
            pools,
            chosen,
            seed,
            conditions=Conditions(bids_usd_per_hour=bids),
            progress=lambda simulated_s, events: stages.part(
                f"{simulated_s:.1f} s simulated, {events} events", simulated_s / max(span_s, 1e-9)
            ),
        )
    ledger = Ledger.of(run.events)
    if as_json:
        result = {
            "tasks": len(ledger.tasks),
            "events": len(run.events),
            "slo_attainment": ledger.slo_attainment_frac,
            "goodput_per_s": ledger.goodput_per_s,
            "cost_usd": ledger.cost_usd,
            "rent_usd": ledger.rent_usd,
            "span_s": ledger.span_s,
            "steps": [msgspec.to_builtins(one) for one in summarize_steps(ledger)],
        }
        print(msgspec.json.encode(result).decode())
        return
    console = Console(file=sys.stdout)
    print_grid(step_grid(ledger, "simulated"), console)
    print_grid(pool_grid(ledger, "simulated"), console)
    console.out(
        f"SLO attainment {ledger.slo_attainment_frac:.2%} of {len(ledger.tasks):,} tasks, goodput "
        f"{ledger.goodput_per_s:,.2f} tasks/s (simulated)",
        highlight=False,
    )


def read_plan(path: Path) -> FleetPlan:
    """Which plan does a file hold?

    Args:
        path: A plan as `steelyard plan --out` or the demo wrote it.

    Raises:
        ConfigError: It cannot be read, or is no plan.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=FleetPlan)
    except OSError as error:
        raise ConfigError(f"--plan {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--plan {path} is no plan: {error}; write one with `steelyard plan --out`"
        ) from error


def _at_planned_rate(workload: Workload, plan: FleetPlan, tasks: int, seed: int) -> Workload:
    if not workload.tasks:
        raise WorkloadError(f"workload {workload.name} holds no task")
    return scale_workload(workload, 1.0, tasks, seed, rate_per_s=plan.tasks_per_s)
