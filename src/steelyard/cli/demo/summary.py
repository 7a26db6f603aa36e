"""What the demo hands on: one JSON object, and the files in its folder."""

from pathlib import Path
from typing import Any

import msgspec

from steelyard.cli.demo.loop import SIMULATED_POLICY, SimulatedPlan
from steelyard.cli.fleet_file import replica_facts
from steelyard.config.catalog_table import Catalog
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.run_figures import run_figures
from steelyard.ledger.summary import summarize_steps
from steelyard.planner.plan import FleetPlan
from steelyard.report.html import demo_report
from steelyard.report.inputs import DemoInputs
from steelyard.store.workload_file import write_workload


def demo_json(
    ledger: Ledger, plan: FleetPlan, simulated: SimulatedPlan, catalog: Catalog
) -> dict[str, Any]:
    """The whole demo in one object.

    Args:
        ledger: The books of the measured run.
        plan: The plan.
        simulated: The plan's simulation.
        catalog: What replicas are made of.

    Returns:
        Keys tasks and steps (counts), by_step, goodput_per_s, slo_attainment, cost_usd, pools,
        plan, baselines and simulation; units are in the names.
    """
    return {
        "tasks": len(ledger.tasks),
        "steps": len({one.step.key for one in ledger.attempts if one.outcome == "ok"}),
        "by_step": [msgspec.to_builtins(summary) for summary in summarize_steps(ledger)],
        "goodput_per_s": ledger.goodput_per_s,
        "slo_attainment": ledger.slo_attainment_frac,
        "cost_usd": ledger.cost_usd,
        "rent_usd": ledger.rent_usd,
        "span_s": ledger.span_s,
        "pools": [_pool(ledger, name) for name in ledger.pools],
        "plan": {
            "tasks_per_s": plan.tasks_per_s,
            "usd_per_hour": plan.usd_per_hour,
            "usd_per_1000_tasks": plan.usd_per_1000_tasks,
            "lower_bound_usd_per_hour": plan.lower_bound_usd_per_hour,
            "gap_frac": plan.gap_frac,
            "slo_attainment": plan.options.quantile,
            "machines": msgspec.to_builtins(plan.machines),
            "choices": msgspec.to_builtins(plan.choices),
        },
        "baselines": msgspec.to_builtins(plan.baselines),
        "simulation": {
            # As `steelyard simulate --json` says it, so that `steelyard report` reads it.
            "policy": SIMULATED_POLICY,
            "runs": {SIMULATED_POLICY: _run(simulated.ledger, catalog)},
            "tasks": len(simulated.ledger.tasks),
            "events": simulated.events,
            "arrivals_s": simulated.arrivals_s,
            "slo_attainment": simulated.ledger.slo_attainment_frac,
            "usd_per_1000_tasks": simulated.usd_per_1000_tasks,
            "used_usd_per_1000_tasks": (
                1000.0 * simulated.ledger.cost_usd / len(simulated.ledger.tasks)
            ),
            "by_step": [msgspec.to_builtins(one) for one in summarize_steps(simulated.ledger)],
        },
    }


def _run(ledger: Ledger, catalog: Catalog) -> dict[str, Any]:
    facts = replica_facts(tuple(ledger.pools.values()), catalog)
    told: dict[str, Any] = msgspec.to_builtins(run_figures(ledger, facts))
    return told


def _pool(ledger: Ledger, name: str) -> dict[str, Any]:
    spec = ledger.pools[name]
    steps = [one for one in ledger.attempts if one.decision.pool == name]
    return {
        "name": name,
        "provider": spec.provider,
        "hardware": spec.hardware,
        "offering": spec.offering,
        "usd_per_hour": spec.usd_per_hour,
        "replicas": spec.replicas,
        "steps": len(steps),
    }


def write_artefacts(
    folder: Path,
    workload: Workload,
    plan: FleetPlan,
    result: dict[str, Any],
    inputs: DemoInputs,
) -> None:
    """Write workload.parquet, plan.json, simulation.json and report.html; the log lies there.

    Args:
        folder: Where to.
        workload: What was recorded.
        plan: The plan.
        result: `demo_json`'s object.
        inputs: What the report shows.
    """
    write_workload(workload, folder / "workload.parquet")
    (folder / "plan.json").write_bytes(_pretty(plan))
    (folder / "simulation.json").write_bytes(_pretty(result["simulation"]))
    (folder / "report.html").write_text(demo_report(inputs), encoding="utf-8")


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
