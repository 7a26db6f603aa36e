"""`steelyard simulate`: a workload through a fleet under one policy or several."""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.fleet_file import GivenFleet, read_fleet
from steelyard.cli.limits import seconds
from steelyard.cli.outputs import check_folder
from steelyard.cli.progress import Stages
from steelyard.cli.renting_file import read_renting
from steelyard.config.plan_catalog import planning_catalog
from steelyard.config.plan_settings import PlanSettings
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError, WorkloadError
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.run_figures import RunFigures, run_figures
from steelyard.ledger.summary import summarize_steps
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.report.compare_grids import latency_grid, policy_grid, use_grid
from steelyard.report.format import significant, usd
from steelyard.report.run_grids import step_grid
from steelyard.report.tables import print_grid
from steelyard.sim import Conditions, Outage, Serving, simulate
from steelyard.sim.synth import scale_workload
from steelyard.store.imports.read import import_workload

_OUTAGE = re.compile(r"(?P<what>[^@]+)@(?P<start>[^:@]+):(?P<duration>[^:@]+)")


@dataclass(frozen=True, slots=True)
class SimulateRequest:
    """What to simulate.

    Attributes:
        workload: File with tasks.
        fleet: File with the fleet.
        policy: Name of the policy.
        compare: Names of others, comma-separated; `all` for every one.
        serving: How the engines of all rented pools with models serve.
        tasks: Tasks drawn from the workload; None takes each as recorded.
        rate_per_s: Rate at which drawn tasks arrive; None takes the plan's.
        seed: Of all draws.
        outages: As `PROVIDER_OR_POOL@START:DURATION`.
        renting: File that says how pools are rented; None for what the fleet's file says.
        first_hour: Hour of the day at which simulated time begins.
        patience: How long a step waits for a pool that is down.
        out: Folder for plots; None draws none.
        as_json: Print JSON instead of tables.
    """

    workload: Path
    fleet: Path
    policy: str
    compare: str
    serving: Serving
    tasks: int | None
    rate_per_s: float | None
    seed: int
    outages: tuple[str, ...]
    renting: Path | None
    first_hour: float
    patience: str
    out: Path | None
    as_json: bool


def run_simulate(asked: SimulateRequest, settings: PlanSettings) -> None:
    """Simulate and print.

    Args:
        asked: What to simulate.
        settings: What the plan was made with, for its catalogue.

    Raises:
        SteelyardError: A file is wrong, or a policy or pool is unknown.
    """
    check_folder("--out", asked.out)
    policies = _policies(asked)
    workload = import_workload(asked.workload).workload
    fleet = read_fleet(asked.fleet, planning_catalog(settings))
    sample = _sample(workload, fleet, asked)
    rented = (spec for spec in fleet.pools if spec.llm_curves and spec.token_price is None)
    renting = fleet.renting
    if asked.renting is not None:
        renting = read_renting(asked.renting, fleet.pools, renting)
    conditions = Conditions(
        serving={spec.name: asked.serving for spec in rented},
        bids_usd_per_hour=fleet.bids_usd_per_hour,
        outages=tuple(parse_outage(text, fleet.pools) for text in asked.outages),
        renting=renting,
        first_hour=asked.first_hour,
        outage_patience_s=seconds("--patience", asked.patience, may_be_none=True),
    )
    conditions.check(fleet.pools)
    with Stages(len(policies)) as stages:
        books = {
            policy: _simulated(policy, sample, fleet, conditions, asked.seed, stages)
            for policy in policies
        }
    runs = {policy: run_figures(ledger, fleet.facts) for policy, (ledger, _) in books.items()}
    if asked.out is not None:
        _plot(asked.out, runs, conditions, sample.tasks[0].arrival_s)
    ledger, events = books[asked.policy]
    memory = _memory(fleet.pools, asked.serving)
    if asked.as_json:
        _print_json(ledger, events, runs, asked.policy, memory)
    else:
        _print(ledger, runs, asked.policy, memory)


def _policies(asked: SimulateRequest) -> list[str]:
    others = list(policy_names()) if asked.compare == "all" else asked.compare.split(",")
    wanted = [asked.policy, *(one.strip() for one in others if one.strip())]
    names = list(dict.fromkeys(wanted))
    for policy in names:
        policy_named(policy)
    return names


def parse_outage(text: str, pools: tuple[PoolSpec, ...]) -> Outage:
    """Which outage is meant?

    Args:
        text: `aws@600s:300s`: a provider or a pool, its start, its duration.
        pools: The fleet.

    Returns:
        The outage.

    Raises:
        ConfigError: It is none, or names nothing of the fleet.
    """
    found = _OUTAGE.fullmatch(text)
    if found is None:
        raise ConfigError(f"--outage {text!r} must be PROVIDER_OR_POOL@START:DURATION: aws@600s:5m")
    what = found["what"]
    start_s = seconds("start of --outage", found["start"], may_be_none=True)
    duration_s = seconds("duration of --outage", found["duration"])
    if what in {spec.name for spec in pools}:
        return Outage(start_s=start_s, duration_s=duration_s, pool=what)
    return Outage(start_s=start_s, duration_s=duration_s, provider=what)


def _sample(workload: Workload, fleet: GivenFleet, asked: SimulateRequest) -> Workload:
    if not workload.tasks:
        raise WorkloadError(f"workload {workload.name} holds no task")
    rate_per_s = fleet.tasks_per_s if asked.rate_per_s is None else asked.rate_per_s
    at_once = len({task.arrival_s for task in workload.tasks}) == 1 and len(workload.tasks) > 1
    if asked.tasks is None and asked.rate_per_s is None and not (at_once and rate_per_s):
        return workload
    return scale_workload(
        workload, 1.0, asked.tasks or len(workload.tasks), asked.seed, rate_per_s=rate_per_s
    )


def _simulated(
    policy: str,
    sample: Workload,
    fleet: GivenFleet,
    conditions: Conditions,
    seed: int,
    stages: Stages,
) -> tuple[Ledger, int]:
    stages.stage(f"simulating {len(sample.tasks)} tasks under {policy}")
    span_s = max(sample.tasks[-1].arrival_s, 1e-9)
    started_s = time.perf_counter()

    def told(simulated_s: float, events: int) -> None:
        per_s = events / max(time.perf_counter() - started_s, 1e-9)
        stages.part(
            f"{policy}: {simulated_s:,.0f} s simulated, {per_s:,.0f} events/s", simulated_s / span_s
        )

    run = simulate(
        sample, fleet.pools, policy_named(policy), seed, conditions=conditions, progress=told
    )
    return Ledger.of(run.events), len(run.events)


def _memory(pools: tuple[PoolSpec, ...], serving: Serving) -> dict[str, tuple[int, str]]:
    """Key-value memory of replicas that is simulated, in tokens, and who says so, by pool."""
    rented = [spec for spec in pools if spec.llm_curves and spec.token_price is None]
    if serving.kv_tokens is not None:
        return {spec.name: (serving.kv_tokens, "given") for spec in rented}
    return {
        spec.name: (spec.kv_tokens, spec.kv_tokens_source or "given")
        for spec in rented
        if spec.kv_tokens is not None
    }


def _print_json(
    ledger: Ledger,
    events: int,
    runs: dict[str, RunFigures],
    policy: str,
    memory: dict[str, tuple[int, str]],
) -> None:
    result = {
        "policy": policy,
        "tasks": len(ledger.tasks),
        "events": events,
        "slo_attainment": ledger.slo_attainment_frac,
        "goodput_per_s": ledger.goodput_per_s,
        "cost_usd": ledger.cost_usd,
        "rent_usd": ledger.rent_usd,
        "span_s": ledger.span_s,
        "kv_memory": {
            pool: {"tokens": tokens, "source": source} for pool, (tokens, source) in memory.items()
        },
        "steps": [msgspec.to_builtins(one) for one in summarize_steps(ledger)],
        "runs": {name: msgspec.to_builtins(run) for name, run in runs.items()},
    }
    print(msgspec.json.encode(result).decode())


def _print(
    ledger: Ledger, runs: dict[str, RunFigures], policy: str, memory: dict[str, tuple[int, str]]
) -> None:
    console = Console(file=sys.stdout)
    print_grid(policy_grid(runs), console)
    print_grid(step_grid(ledger, "simulated"), console)
    print_grid(latency_grid(runs[policy]), console)
    print_grid(use_grid(runs[policy]), console)
    mine = runs[policy]
    console.out(
        f"{policy}: SLO attainment {mine.slo_attainment_frac:.2%} of {mine.tasks:,} tasks, goodput "
        f"{significant(mine.goodput_per_s)} tasks/s; paid {usd(mine.paid_usd)}, "
        f"{usd(mine.usd_per_task)} per task, of which {usd(mine.cost_usd)} was used (simulated)",
        highlight=False,
    )
    for pool, (tokens, source) in sorted(memory.items()):
        console.out(
            f"{pool}: a replica holds {tokens:,} tokens of context ({source})", highlight=False
        )


def _plot(
    folder: Path, runs: dict[str, RunFigures], conditions: Conditions, first_s: float
) -> None:
    from steelyard.report.compare_plots import over_time_plot, policy_plot

    outages = tuple(
        (one.start_s - first_s, one.start_s + one.duration_s - first_s)
        for one in conditions.outages
    )
    plots = {f"over-time-{name}.svg": over_time_plot(run, outages) for name, run in runs.items()}
    plots["policies.svg"] = policy_plot(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in plots.items():
            (folder / name).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror}") from error
