"""What does a task cost under each policy, when 99 % of the tasks must meet their deadline?

Run as `python benchmarks/policies.py --traces FOLDER`, with the folder of the trace files.

Each policy gets the fleet, out of several mixes of the same price, on which a task costs it least:
the rate of tasks is raised (arrivals stretched, so that bursts keep their shape) until less than
99 % of the deadlines are met, and the fleet's rent is shared by the tasks at that rate. The bound
is the cheapest fleet of the same offerings that is never idle, never waits and never forgets a
prefix (`steelyard.planner.bounds`). Tasks are the half of a trace that no policy was shaped on.

A trace's calls are taken to be of one model, so that the catalogue has curves for them, and a
task's deadline is 5 s plus STRETCH times its tools, people (at most 60 s each) and model calls at
20 ms per output token and 0.1 ms per prompt token that is not repeated. Streams at once are limited
by the memory that prompts of the trace's 75th percentile need.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime as dt
import math
import os
import platform
import time
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.offering import Offering
from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError
from steelyard.placement.baselines import policy_named, policy_names
from steelyard.planner.bounds import CostBound, cost_bound, fleet_bound
from steelyard.planner.sizing import (
    Counts,
    SizingAim,
    highest_rate_per_s,
)
from steelyard.sim.arrivals import replayed_s, with_arrivals
from steelyard.store.workload_file import read_workload

LONGEST_GAP_S = 60.0
ENGINE = "vllm-0.22.1"
# Memory of one accelerator in GB (NVIDIA's data sheets, read 2026-11-23).
GPU_GB = {
    "NVIDIA A100 80GB PCIe": 80,
    "NVIDIA A100-SXM4-40GB": 40,
    "NVIDIA A100-SXM4-80GB": 80,
    "NVIDIA A10G": 24,
    "NVIDIA H100 80GB HBM3": 80,
    "NVIDIA H100 NVL": 94,
    "NVIDIA H200": 141,
    "NVIDIA L4": 24,
    "NVIDIA L40S": 48,
}
# Weights in GB and key-value bytes per token in bf16: 2 * layers * heads * size * 2 (model cards).
MODELS = {
    "llama-3.1-8b": (16.1, 131_072),
    "qwen2.5-0.5b": (1.0, 12_288),
    "gemma-2-2b": (5.2, 106_496),
}


TRACES = (
    ("coding-agent", "claude_code_weka_dev.parquet", "llama-3.1-8b", 60, 14.5),
    ("tau-bench", "taubench_gpt4o_airline.parquet", "llama-3.1-8b", 400, 7.5),
    ("local-model", "agentcg_glm47flash_local.parquet", "llama-3.1-8b", 90, 11.0),
)


def as_model(step: WorkloadStep, model: str) -> WorkloadStep:
    """The step as a call of the model, or with a gap of bounded length."""
    if step.kind == "llm":
        return msgspec.structs.replace(step, model=model)
    gap_s = min(step.think_or_tool_s, LONGEST_GAP_S)
    return msgspec.structs.replace(step, think_or_tool_s=gap_s)


def with_deadline(task: WorkloadTask, model: str, stretch: float) -> WorkloadTask:
    """The task with steps of the model and the deadline of the module's docstring."""
    steps = tuple(as_model(step, model) for step in task.steps)
    work_s = math.fsum(
        step.think_or_tool_s
        + step.output_tokens * 0.02
        + (step.prompt_tokens - step.shared_prefix_tokens) * 0.0001
        for step in steps
    )
    return msgspec.structs.replace(
        task, agent="agent", steps=steps, deadline_after_s=5.0 + stretch * work_s
    )


def half_of(workload: Workload, half: str, seed: int) -> Workload:
    """One of two halves, drawn by the seed: `tuned` or `held-out`."""
    order = np.random.default_rng(seed).permutation(len(workload.tasks))
    middle = len(order) // 2
    chosen = sorted(order[:middle] if half == "tuned" else order[middle:])
    tasks = tuple(workload.tasks[index] for index in chosen)
    return msgspec.structs.replace(workload, tasks=tasks)


def recorded_arrivals_s(folder: Path, source: str, seed: int) -> list[float]:
    """Arrivals of the Azure trace, or drawn from ServeGen's clients for four hours."""
    if source == "azure":
        frame = pl.read_parquet(folder / "azure2023_conv.parquet", columns=["arrival_s"])
        return sorted(frame["arrival_s"].to_list())
    rates = pl.read_parquet(folder / "servegen_mlarge_rates.parquet")
    rates = rates.filter(pl.col("window_start_s") < 4 * 3600)
    random = np.random.default_rng(seed)
    times: list[float] = []
    for row in rates.iter_rows(named=True):
        times += _window_s(row, random)
    return sorted(times)


def _window_s(row: dict[str, object], random: np.random.Generator) -> list[float]:
    """Arrivals of one client in its window of ten minutes: a gamma or Weibull renewal process."""
    mean = 600.0 * float(str(row["rate_rps"]))
    count = int(3 * mean) + 50
    shape, scale = row["p1"], row["p2"]
    if shape is None or scale is None or mean <= 0.0:
        gaps = random.exponential(600.0 / max(mean, 1e-9), count)
    elif row["pattern"] == "Gamma":
        gaps = random.gamma(float(str(shape)), float(str(scale)), count)
    else:
        gaps = float(str(scale)) * random.weibull(float(str(shape)), count)
    since = np.cumsum(gaps)
    start = float(str(row["window_start_s"]))
    return [start + float(one) for one in since[since < 600.0]]


def market(
    catalog: Catalog, workload: Workload, model: str, only: str = ""
) -> tuple[PoolSpec, ...]:
    """The best four GPU offerings, the best Arm and the best x86 for the model, two for tools."""
    steps = [step for task in workload.tasks for step in task.steps if step.kind == "llm"]
    uncached = math.fsum(s.prompt_tokens - s.shared_prefix_tokens for s in steps) / len(steps)
    output = math.fsum(s.output_tokens for s in steps) / len(steps)
    prompts = sorted(s.prompt_tokens for s in steps)
    context = prompts[int(0.75 * len(prompts))]
    priced: dict[str, list[tuple[float, str, str, PoolSpec]]] = {"gpu": [], "arm": [], "x86": []}
    for offering in catalog.offerings:
        spec = llm_pool(catalog, offering, model, uncached, context)
        if spec is not None and any(one in spec.name for one in only.split(",")):
            curve = spec.llm_curves[model]
            cap = curve.concurrency_cap
            gap_s = (curve.itl_base_s + curve.itl_slope_s * cap) / cap
            used_s = uncached * curve.prefill_s_per_token + output * gap_s
            gpu = offering.instance_type.accelerator or spec.arch
            priced[spec.hardware].append((used_s * spec.usd_per_hour, gpu, spec.name, spec))
    chosen: list[PoolSpec] = []
    for hardware, most in (("gpu", 4), ("arm", 1), ("x86", 1)):
        seen: set[str] = set()
        for _, key, _, spec in sorted(priced[hardware], key=lambda one: (one[0], one[2])):
            # Sizes of one machine with the same GPU are no choice.
            if key not in seen and len(seen) < most:
                seen.add(key)
                chosen.append(spec)
    tools = [tool_pool(catalog, one) for one in catalog.offerings]
    known = [one for one in tools if one is not None]
    chosen += [
        min((one for one in known if one.arch == arch), key=_usd_per_cpu)
        for arch in ("arm64", "x86_64")
    ]
    return tuple(sorted(chosen, key=lambda spec: spec.name))


def _usd_per_cpu(spec: PoolSpec) -> tuple[float, str]:
    curve = spec.tool_curve
    assert curve is not None
    return (spec.usd_per_hour / (curve.cores * curve.relative_speed), spec.name)


def llm_pool(
    catalog: Catalog, offering: Offering, model: str, uncached: float, context: int
) -> PoolSpec | None:
    """The offering as a pool of one model, its streams limited by memory; None if it cannot."""
    fit = catalog.llm_fit(offering, model, ENGINE, prompt_tokens=uncached)
    # Fleets of a few machines with eight GPUs each would tell little of a policy.
    if fit is None or fit.quality == "weak" or offering.instance_type.accelerator_count > 1:
        return None
    kind = offering.instance_type
    weights_gb, token_bytes = MODELS[model]
    memory_gb = kind.memory_bytes / 1e9
    if kind.accelerator:
        memory_gb = GPU_GB[kind.accelerator] * kind.accelerator_count
    streams = int((0.9 * memory_gb - weights_gb) * 1e9 / token_bytes / max(context, 1))
    if streams < 1:
        return None
    curve = msgspec.structs.replace(
        fit.curve, concurrency_cap=min(fit.curve.concurrency_cap, streams)
    )
    return _pool(offering, f"{offering.provider}/{kind.name}", {model: curve}, None)


def tool_pool(catalog: Catalog, offering: Offering) -> PoolSpec | None:
    """The offering as a pool of tool slots, 500 MB each; None where its CPU is unknown."""
    curve = catalog.tool_curve(offering)
    if curve is None or offering.instance_type.accelerator or not 8 <= curve.cores <= 16:
        return None
    slots = max(1, int(curve.memory_bytes / 500e6))
    curve = msgspec.structs.replace(curve, slots=slots)
    name = f"tools:{offering.provider}/{offering.instance_type.name}"
    return _pool(offering, name, {}, curve)


def _pool(offering: Offering, name: str, curves: dict, tools: object) -> PoolSpec:  # type: ignore[type-arg]
    return PoolSpec(
        name=name,
        provider=offering.provider,
        region=offering.region,
        arch=offering.instance_type.arch,
        hardware=offering.instance_type.hardware,
        offering=offering.name,
        usd_per_hour=offering.usd_per_hour,
        replicas=1,
        llm_curves=curves,
        tool_curve=tools,  # type: ignore[arg-type]
    )


def mixes_of(
    pools: tuple[PoolSpec, ...], workload: Workload, budget_usd_per_hour: float
) -> list[Counts]:
    """Fleets of about one price: the bound's, one per model pool, and halves of the best two."""
    model_pools = [spec for spec in pools if spec.llm_curves]
    tools = tuple(spec for spec in pools if not spec.llm_curves)
    found: list[tuple[float, dict[str, float]]] = []
    for some in [tuple(model_pools), *((spec,) for spec in model_pools)]:
        try:
            bound = cost_bound(workload, (*some, *tools), 1.0)
        except InfeasiblePlanError as error:
            print(f"  left out: {error}")
            continue
        found.append((bound.usd_per_hour, bound.replicas))
    singles = sorted(found[1:], key=lambda one: one[0])[:2]
    if len(singles) == 2:
        both = {
            name: sum(one[1].get(name, 0.0) / one[0] for one in singles)
            for name in {*singles[0][1], *singles[1][1]}
        }
        found.append((2.0, both))
    fleets: list[Counts] = []
    for usd, replicas in found:
        scale = budget_usd_per_hour / usd
        counts = tuple(_whole(spec, scale * replicas.get(spec.name, 0.0)) for spec in pools)
        if counts not in fleets:
            fleets.append(counts)
    return fleets


def _whole(spec: PoolSpec, replicas: float) -> int:
    if not spec.llm_curves:
        # Tools cost next to nothing; they get twice the room, lest they decide the comparison.
        return max(1, math.ceil(2.0 * replicas))
    return round(replicas) or int(replicas > 0.2)


def describe(pools: tuple[PoolSpec, ...], counts: Counts) -> str:
    """A fleet in words."""
    return ", ".join(
        f"{count} x {spec.name}" for spec, count in zip(pools, counts, strict=False) if count
    )


@dataclasses.dataclass(frozen=True)
class Result:
    """The cheapest way to run the case under a policy."""

    policy: str
    usd_per_task: float
    rate_per_s: float
    counts: Counts
    took_s: float


def best_rate(job: tuple[str, SizingAim, tuple[tuple[Counts, float], ...]]) -> Result:
    """On which fleet does a task cost the policy least?"""
    name, aim, fleets = job
    started_s = time.process_time()
    best = Result(name, math.inf, 0.0, (), 0.0)
    for counts, most_per_s in fleets:
        usd_per_s = aim.usd_per_hour(counts) / 3600.0
        least_per_s = max(0.15 * most_per_s, 1.02 * usd_per_s / best.usd_per_task)
        if least_per_s >= most_per_s:
            continue
        rate = highest_rate_per_s(policy_named(name), aim, counts, (least_per_s, most_per_s))
        if rate > 0.0:
            best = Result(name, usd_per_s / rate, rate, counts, 0.0)
    return dataclasses.replace(best, took_s=time.process_time() - started_s)


def main() -> None:
    """Print one line per policy and case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of the trace files")
    parser.add_argument("--only", default="", help="coding-agent, tau-bench or local-model")
    parser.add_argument("--arrivals", default="azure,servegen")
    parser.add_argument("--policies", default="", help="names, comma-separated; all if left out")
    parser.add_argument("--half", choices=("held-out", "tuned"), default="held-out")
    parser.add_argument("--tasks", type=int, default=0, help="tasks drawn; 0 for the case's own")
    parser.add_argument("--budget", type=float, default=0.0, help="price of the fleets, USD/h")
    parser.add_argument(
        "--offerings", default="", help="serve models on these alone, e.g. g6e,NC24"
    )
    parser.add_argument("--stretch", type=float, default=1.2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"{dt.datetime.now(dt.UTC).date()}, seed {given.seed}, {given.half} half, "
        f"deadlines 5 s + {given.stretch:g} x work"
    )
    catalog = load_catalog()
    for trace in TRACES:
        if given.only in {"", trace[0]}:
            for arrivals in given.arrivals.split(","):
                compare(given, catalog, trace, arrivals)


def compare(
    given: argparse.Namespace,
    catalog: Catalog,
    trace: tuple[str, str, str, int, float],
    arrivals: str,
) -> None:
    """Print one case."""
    name, file, model, tasks, usd_per_hour = trace
    whole = half_of(read_workload(given.traces / file), given.half, given.seed)
    fits = [
        with_deadline(task, model, given.stretch)
        for task in whole.tasks
        if max(step.prompt_tokens + step.output_tokens for step in task.steps) < 131_000
    ]
    drawn = msgspec.structs.replace(whole, tasks=tuple(fits))
    recorded = recorded_arrivals_s(given.traces, arrivals, given.seed)
    times_s = replayed_s(recorded, given.tasks or tasks, 1.0, given.seed)
    workload = with_arrivals(drawn, times_s, given.seed)
    pools = market(catalog, workload, model, given.offerings)
    bound = cost_bound(workload, pools, 1.0)
    steps = sum(len(task.steps) for task in workload.tasks)
    print(
        f"\n{name} ({len(fits)} of {len(whole.tasks)} tasks fit) with {arrivals} arrivals, {model}:"
        f" {len(times_s)} tasks, {steps} steps; bound {1000.0 * bound.usd_per_task:.3f} USD/1,000"
        f" tasks: {', '.join(f'{n:.2f} {p}' for p, n in bound.replicas.items() if n > 1e-6)}"
    )
    for spec in pools:
        for curve in spec.llm_curves.values():
            print(f"  {spec.name}: {spec.usd_per_hour:.3f} USD/h, {curve.concurrency_cap} streams")
    names = tuple(given.policies.split(",")) if given.policies else policy_names()
    results = open_market(given, workload, pools, given.budget or usd_per_hour, names)
    show(results, pools, bound)


def open_market(
    given: argparse.Namespace,
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    usd_per_hour: float,
    names: tuple[str, ...],
) -> list[Result]:
    """Every policy on its best fleet."""
    fleets: list[tuple[Counts, float]] = []
    bids: dict[Counts, dict[str, float]] = {}
    for counts in mixes_of(pools, workload, usd_per_hour):
        fleet = tuple(
            msgspec.structs.replace(spec, replicas=count)
            for spec, count in zip(pools, counts, strict=True)
            if count
        )
        try:
            worth = fleet_bound(workload, fleet, 1.0)
        except InfeasiblePlanError:
            continue
        rent = math.fsum(spec.usd_per_hour * spec.replicas for spec in fleet)
        most_per_s = rent / worth.usd_per_hour
        fleets.append((counts, most_per_s))
        bids[counts] = worth.bid_usd_per_hour
        print(
            f"  fleet {describe(pools, counts)}: {rent:.2f} USD/h, at most {most_per_s:.3f}/s, "
            f"bids {', '.join(f'{p} {b:.2f}' for p, b in worth.bid_usd_per_hour.items())}"
        )

    def fluid_usd(one: tuple[Counts, float]) -> float:
        return sum(s.usd_per_hour * n for s, n in zip(pools, one[0], strict=True)) / one[1]

    fleets.sort(key=fluid_usd)
    # A fleet that is dearer by half even when never idle is not worth minutes of simulation.
    fleets = [one for one in fleets if fluid_usd(one) < 1.5 * fluid_usd(fleets[0])][:3]
    aim = SizingAim(
        workload=workload,
        pools=pools,
        attainment_frac=0.99,
        most=tuple(10_000 for _ in pools),
        bids=_Known(bids),
        seed=given.seed,
    )
    jobs = [(name, aim, tuple(fleets)) for name in names]
    if given.jobs == 1:
        return [best_rate(job) for job in jobs]
    with concurrent.futures.ProcessPoolExecutor(given.jobs) as workers:
        return list(workers.map(best_rate, jobs))


@dataclasses.dataclass(frozen=True)
class _Known:
    """Bid prices by fleet; a class, so that another process can be sent it."""

    bids: dict[Counts, dict[str, float]]

    def __call__(self, counts: Counts) -> dict[str, float]:
        return self.bids[counts]


def show(results: list[Result], pools: tuple[PoolSpec, ...], bound: CostBound) -> None:
    """Print a line per policy; the first is ours."""
    rivals = [one.usd_per_task for one in results if one.policy != policy_names()[0]]
    best = min(rivals, default=math.inf)
    for one in results:
        print(
            f"  {one.policy:28s} {1000.0 * one.usd_per_task:9.3f} USD/1,000 tasks"
            f"  {one.usd_per_task / best:6.3f} of the best baseline"
            f"  {one.usd_per_task / bound.usd_per_task:6.3f} of the bound"
            f"  {one.rate_per_s:7.3f}/s on {describe(pools, one.counts)}  ({one.took_s:.0f} s CPU)",
            flush=True,
        )


if __name__ == "__main__":
    main()
