"""`the-deal`: 50 million Arm cores, GPUs beside them, three providers, one of them lost.

python benchmarks/the_deal.py [--virtual-s 60] [--scale 1.0] [--out the-deal]

260,000 Arm machines of 192 cores (49.9 million cores) and 120,000 GPUs at three providers run
coding agents. Most Arm machines serve a small model, some run tools; the GPUs serve a larger model
that only they can serve in time. The lost provider holds 30 % of everything. Curves and prices are
the catalogue's (`m9g.metal-48xl` for every Arm machine, `g6e.2xlarge` for every GPU, on demand), so
the bill is at list price.

Agents: 100 different tasks drawn from the statistics of recorded coding agents (docs/glossary.md
names the traces): 20 to 60 steps, prompts that grow to some 20,000 tokens and repeat 93-97 % of the
last one, 40-220 output tokens, tools that use 0.1-0.7 cores and 250-330 MB. A task's deadline is
1.5 times its time on idle hardware, and 20 s. Tasks under way at the start are begun in mid-life
during the first quarter, their prefixes found in the cache they arrive at.

The fleet is run as cells of 4,000 Arm machines that share nothing, on two threads.
"""

import argparse
import dataclasses
import datetime as dt
import json
import math
import os
import platform
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.offering import Offering
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.domain.workload import WorkloadStep, WorkloadTask
from steelyard.sim import Conditions, Outage
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.cells import added, cell_pools, quantiles
from steelyard.sim.compiled.simulate import CompiledRun, Span, simulate_compiled
from steelyard.sim.compiled.tables import Sample, task_tables

mpl.use("Agg")
from matplotlib import pyplot as plt

ARM, GPU = "aws/us-east-1/m9g.metal-48xl/on_demand", "aws/us-east-1/g6e.2xlarge/on_demand"
SMALL, LARGE = "qwen2.5-0.5b", "llama-3.1-8b"
ARM_MACHINES, TOOL_MACHINES, GPUS = 260_000, 12_000, 120_000
# How much of each provider's kind: the second one is lost.
SHARES = {"north": 0.4, "middle": 0.3, "south": 0.3}
LOST = "middle"
TASKS_PER_S = 30_000.0
MACHINES_PER_CELL = 4_000
DIFFERENT_TASKS, STAGES = 100, 8
_SPARE_S = 20.0


def curve_of(catalog: Catalog, offering: Offering, model: str) -> LlmCurve:
    """The published curve for the prompts of agents, of which a thousand tokens are new."""
    curve = catalog.llm_curve(offering, model, prompt_tokens=1024.0)
    assert curve is not None, f"the catalogue has no curve of {model} on {offering.name}"
    return curve


def fleet(catalog: Catalog, scale: float) -> tuple[PoolSpec, ...]:
    """Three pools at each provider: small model on Arm, tools on Arm, large model on GPUs."""
    arm, gpu = catalog.offering(ARM), catalog.offering(GPU)
    tools = catalog.tool_curve(arm)
    assert tools is not None
    pools: list[PoolSpec] = []

    def add(name: str, kind: str, count: float, curves: dict[str, LlmCurve]) -> None:
        offering = gpu if kind == "gpu" else arm
        provider = name.split("-", maxsplit=1)[0]
        pools.append(
            PoolSpec(
                name=name,
                provider=provider,
                region="r",
                arch="x86_64" if kind == "gpu" else "arm64",
                hardware="gpu" if kind == "gpu" else "arm",
                offering=offering.name,
                usd_per_hour=offering.usd_per_hour,
                replicas=round(count * scale),
                llm_curves=curves,
                tool_curve=None if curves else tools,
            )
        )

    for provider, share in SHARES.items():
        small_arm = {SMALL: curve_of(catalog, arm, SMALL)}
        large_gpu = {LARGE: curve_of(catalog, gpu, LARGE)}
        add(f"{provider}-arm", "arm", share * (ARM_MACHINES - TOOL_MACHINES), small_arm)
        add(f"{provider}-tools", "arm", share * TOOL_MACHINES, {})
        add(f"{provider}-gpu", "gpu", share * GPUS, large_gpu)
    return tuple(pools)


def coding_task(number: int, random: np.random.Generator) -> WorkloadTask:
    """One task: calls of a model and tools in turn."""
    steps: list[WorkloadStep] = []
    prompt, rounds = int(random.integers(2_000, 5_000)), int(random.integers(10, 31))
    last = {SMALL: 0, LARGE: 0}
    busy_s = 0.0
    for at in range(2 * rounds):
        parents = (at - 1,) if at else ()
        if at % 2 == 0:
            model = SMALL if random.random() < 0.65 else LARGE
            output = int(np.clip(random.lognormal(math.log(90), 0.6), 40, 220))
            step = WorkloadStep(
                step_id=at,
                parents=parents,
                kind="llm",
                name=f"{'edit' if model == SMALL else 'plan'}-{at.bit_length()}",
                model=model,
                prompt_tokens=prompt,
                output_tokens=output,
                max_output_tokens=512,
                shared_prefix_tokens=last[model],
            )
            busy_s += 0.03 * output + 8e-5 * (prompt - last[model])
            last[model] = prompt
            prompt += output + int(random.exponential(500))
        else:
            wall_s = float(np.clip(random.lognormal(math.log(1.5), 0.8), 0.1, 20))
            cores = float(random.uniform(0.1, 0.7))
            step = WorkloadStep(
                step_id=at,
                parents=parents,
                kind="tool",
                name=f"run-{at.bit_length()}",
                tool="shell",
                cpu_s=wall_s * cores,
                think_or_tool_s=wall_s * (1.0 - cores),
                memory_bytes=int(random.uniform(250, 330)) << 20,
            )
            busy_s += wall_s
        steps.append(step)
    return WorkloadTask(
        task_id=str(number),
        agent="coder",
        arrival_s=0.0,
        steps=tuple(steps),
        deadline_after_s=_SPARE_S + 1.5 * busy_s,
    )


def different_tasks(seed: int) -> tuple[tuple[WorkloadTask, ...], tuple[int, ...], list[float]]:
    """The tasks, each at its beginning and at stages of its life; and how long a task takes."""
    random = np.random.default_rng(seed)
    tasks: list[WorkloadTask] = []
    done: list[int] = []
    lengths_s: list[float] = []
    for number in range(DIFFERENT_TASKS):
        task = coding_task(number, random)
        deadline_s = task.deadline_after_s or 0.0
        lengths_s.append((deadline_s - _SPARE_S) / 1.5 * 1.3)
        for stage in range(STAGES):
            skipped = stage * len(task.steps) // STAGES
            left = 1.0 - skipped / len(task.steps)
            done.append(skipped)
            tasks.append(msgspec.structs.replace(task, deadline_after_s=deadline_s * left))
    return tuple(tasks), tuple(done), lengths_s


def cell_sample(
    kinds: tuple[tuple[WorkloadTask, ...], tuple[int, ...], list[float]],
    rate_per_s: float,
    virtual_s: float,
    seed: int,
) -> Sample:
    """New tasks at a steady rate, and those under way at the start."""
    tasks, done, lengths_s = kinds
    random = np.random.default_rng(seed)
    fresh_s = np.cumsum(random.exponential(1.0 / rate_per_s, int(rate_per_s * virtual_s * 1.1)))
    fresh_s = fresh_s[fresh_s < virtual_s]
    fresh = random.integers(DIFFERENT_TASKS, size=len(fresh_s)) * STAGES
    # Long tasks are met under way in proportion to their length.
    weights = np.array(lengths_s) / sum(lengths_s)
    under_way = int(rate_per_s * float(np.mean(lengths_s)))
    old_s = random.uniform(0.0, virtual_s / 4.0, under_way)
    old = random.choice(DIFFERENT_TASKS, size=under_way, p=weights) * STAGES
    old += random.integers(STAGES, size=under_way)
    times_s = np.concatenate([fresh_s, old_s])
    order = np.argsort(times_s, kind="stable")
    drawn: npt.NDArray[np.int64] = np.concatenate([fresh, old])[order]
    sample = Sample.drawn_from(tasks, times_s[order], drawn, seed)
    return dataclasses.replace(sample, resumed=done)


class Board:
    """Says now and then how far the cells are."""

    def __init__(self, cells: int, virtual_s: float) -> None:
        self._lock = threading.Lock()
        self._now_s = [0.0] * cells
        self._events = [0] * cells
        self._virtual_s = virtual_s
        self._began_s = self._said_s = time.perf_counter()

    def told(self, cell: int, now_s: float, events: int) -> None:
        """A cell is so far."""
        with self._lock:
            self._now_s[cell], self._events[cell] = now_s, events
            moment_s = time.perf_counter()
            if moment_s - self._said_s < 5.0:
                return
            self._said_s = moment_s
            done = sum(self._now_s) / len(self._now_s)
            rate = sum(self._events) / (moment_s - self._began_s)
            print(
                f"  {done:5.1f} of {self._virtual_s:.0f} s simulated, "
                f"{sum(self._events):,} events, {rate:,.0f} events/s",
                file=sys.stderr,
                flush=True,
            )


def report(
    run: CompiledRun, pools: tuple[PoolSpec, ...], phases: dict[str, slice]
) -> dict[str, object]:
    """Figures per phase, ready for JSON."""
    told: dict[str, object] = {}
    for phase, part in phases.items():
        windows, flow = run.windows[part], run.flow[part]
        seconds = float(part.stop - part.start)
        ended = int(windows["succeeded"].sum() + windows["failed"].sum())
        told[phase] = {
            "tasks_ended": ended,
            "tasks_succeeded": int(windows["succeeded"].sum()),
            "slo_attainment": float(windows["in_time"].sum()) / max(1, ended),
            "goodput_tasks_per_s": float(windows["in_time"].sum()) / seconds,
            "steps_placed_in_time": float(windows["placed_in_time"].sum())
            / max(1, int(windows["placed"].sum())),
            "steps_per_s": float(windows["placed"].sum()) / seconds,
            "attempts_failed": int(flow["failed"].sum()),
            "step_cost_usd_per_s": float(windows["cost_usd"].sum()) / seconds,
            "latencies": {
                kind: msgspec.to_builtins(quantiles(run.latencies[part, at]))
                for at, kind in enumerate(layout.LATENCIES)
            },
            "pools": {
                spec.name: {
                    "busy_places": float(flow["running_s"][:, at].sum())
                    / (seconds * spec.replicas * places(spec)),
                    "sold_of_rent": float(flow["cost_usd"][:, at].sum())
                    / (seconds * spec.replicas * spec.usd_per_hour / 3600.0),
                    "waiting": float(flow["waiting_s"][:, at].sum()) / seconds,
                    "cached_share": float(flow["cached_tokens"][:, at].sum())
                    / max(1.0, float(flow["input_tokens"][:, at].sum())),
                }
                for at, spec in enumerate(pools)
            },
        }
    return told


def places(spec: PoolSpec) -> int:
    """Steps that a replica runs at once."""
    if spec.tool_curve is not None:
        return spec.tool_curve.slots
    return next(iter(spec.llm_curves.values())).concurrency_cap


def plot(run: CompiledRun, pools: tuple[PoolSpec, ...], outage: Outage, path: Path) -> None:
    """Steps, latencies, pools and tasks over time."""
    used = len(run.windows) - 1
    times_s = np.arange(used) + 0.5
    figure, axes = plt.subplots(4, 1, figsize=(9, 12), sharex=True, layout="constrained")
    finished = run.flow["finished"][:used].sum(axis=1)
    failed = run.flow["failed"][:used].sum(axis=1)
    axes[0].plot(times_s, finished / 1e6, label="steps that ended")
    axes[0].plot(times_s, failed / 1e6, label="attempts lost")
    axes[0].set_ylabel("million per s")
    for at, kind in (
        (layout.TTFT, "first token"),
        (layout.LLM_STEP, "LLM step"),
        (layout.TOOL_STEP, "tool step"),
    ):
        found = [quantiles(run.latencies[now, at]).p95_s for now in range(used)]
        axes[1].plot(times_s, [math.nan if one is None else one for one in found], label=kind)
    axes[1].set_yscale("log")
    axes[1].set_ylabel("p95 latency, s")
    for at, spec in enumerate(pools):
        room = spec.replicas * places(spec)
        busy = run.flow["running_s"][:used, at] / room
        style = "-" if spec.name.endswith("-arm") else "--" if spec.name.endswith("-gpu") else ":"
        axes[2].plot(times_s, 100.0 * busy, style, label=spec.name)
    axes[2].set_ylabel("places in use, %")
    placed = np.maximum(run.windows["placed"][:used], 1)
    ended = (run.windows["succeeded"] + run.windows["failed"])[:used].astype(np.float64)
    # No line where nothing has ended yet.
    ended[ended == 0.0] = np.nan
    axes[3].plot(
        times_s,
        100.0 * run.windows["placed_in_time"][:used] / placed,
        label="steps predicted in time",
    )
    axes[3].plot(
        times_s, 100.0 * run.windows["in_time"][:used] / ended, label="tasks that kept the deadline"
    )
    axes[3].set_ylabel("%")
    axes[3].set_xlabel("simulated time, s")
    for one in axes:
        one.axvspan(outage.start_s, outage.start_s + outage.duration_s, color="0.92")
        one.set_ylim(bottom=None if one is axes[1] else 0.0)
        one.legend(fontsize=7, ncols=4, loc="best")
    cores = sum(s.replicas for s in pools if s.hardware == "arm") * 192
    axes[0].set_title(
        f"the-deal: {cores / 1e6:.1f} million Arm cores; provider {LOST!r} lost (grey)"
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    """Simulate, print a report, write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--virtual-s", type=float, default=60.0)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the fleet and the load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", default="cheapest_feasible")
    parser.add_argument("--out", type=Path, default=Path("the-deal"))
    given = parser.parse_args()
    pools = fleet(load_catalog(), given.scale)
    cells = max(1, round(ARM_MACHINES * given.scale / MACHINES_PER_CELL))
    begin_s, end_s = round(given.virtual_s * 0.5), round(given.virtual_s * 0.75)
    outage = Outage(provider=LOST, start_s=begin_s, duration_s=end_s - begin_s)
    kinds = different_tasks(given.seed)
    world = Conditions(outages=(outage,))
    tables = task_tables(cell_sample(kinds, 1.0, 1.0, given.seed), world)
    board = Board(cells, given.virtual_s)
    span = Span(until_s=given.virtual_s, window_s=1.0, windows=math.ceil(given.virtual_s) + 1)

    def run_cell(cell: int) -> CompiledRun:
        rate_per_s = TASKS_PER_S * given.scale / cells
        sample = cell_sample(kinds, rate_per_s, given.virtual_s, given.seed * 100_000 + cell)
        return simulate_compiled(
            dataclasses.replace(sample, tables=tables),
            cell_pools(pools, cells, cell),
            given.policy,
            given.seed,
            world,
            (span, lambda now_s, events: board.told(cell, now_s, events)),
        )

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    # The first cell compiles the kernels where they are not in the cache yet.
    runs = [run_cell(0)]
    with ThreadPoolExecutor(given.threads) as threads:
        runs.extend(threads.map(run_cell, range(1, cells)))
    run = added(runs)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    quarter = round(given.virtual_s * 0.25)
    phases = {
        "before": slice(quarter, begin_s),
        "during": slice(begin_s, end_s),
        "after": slice(end_s, int(given.virtual_s)),
    }
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": str(dt.datetime.now(tz=dt.UTC).date()),
        "seed": given.seed,
        "policy": given.policy,
        "arm_cores": sum(spec.replicas for spec in pools if spec.hardware == "arm") * 192,
        "gpus": sum(spec.replicas for spec in pools if spec.hardware == "gpu"),
        "cells": cells,
        "virtual_s": given.virtual_s,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "events": run.events,
        "events_per_cpu_s": run.events / cpu_s,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "rent_usd_per_hour": math.fsum(spec.usd_per_hour * spec.replicas for spec in pools),
        "changes": run.changes,
        "notes": run.notes,
        "phases": report(run, pools, phases),
    }
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=1))
    plot(run, pools, outage, given.out.with_suffix(".png"))
    print_report(result, given.out)


def print_report(result: dict[str, object], out: Path) -> None:
    """The main figures as text."""
    print(f"{result['machine']}; {result['date']}; seed {result['seed']}; {result['policy']}")
    print(f"{result['arm_cores']:,} Arm cores and {result['gpus']:,} GPUs", end=" ")
    print(f"in {result['cells']} cells, rent {result['rent_usd_per_hour']:,.0f} USD/h")
    print(f"{result['virtual_s']:.0f} s simulated in {result['wall_s']:.0f} s", end=" ")
    print(f"({result['cpu_s']:.0f} s of CPU time), {result['events']:,} events,", end=" ")
    print(f"{result['events_per_cpu_s']:,.0f} per CPU second;", end=" ")
    print(f"at most {result['peak_memory_gb']:.1f} GB")
    phases = result["phases"]
    assert isinstance(phases, dict)
    for phase, told in phases.items():
        times = told["latencies"]
        print(f"{phase:7} {told['steps_per_s']:12,.0f} steps/s,", end=" ")
        print(f"{told['steps_placed_in_time']:.1%} placed in time;", end=" ")
        print(f"{told['tasks_ended']:,} tasks ended,", end=" ")
        print(f"SLO attainment {told['slo_attainment']:.1%},", end=" ")
        print(f"goodput {told['goodput_tasks_per_s']:,.0f}/s;", end=" ")
        print(f"steps cost {told['step_cost_usd_per_s'] * 3600.0:,.0f} USD/h;", end=" ")
        print(f"{told['attempts_failed']:,} attempts lost")
        for kind, one in times.items():
            if one["count"]:
                print(f"        {kind:12} p50 {one['p50_s']:8.2f} s  p95 {one['p95_s']:8.2f} s")
        for pool, one in told["pools"].items():
            print(
                f"        {pool:18} places in use {one['busy_places']:6.1%}  sold of rent "
                f"{one['sold_of_rent']:6.1%}  waiting {one['waiting']:12,.0f}  cached "
                f"{one['cached_share']:6.1%}"
            )
    for note in result["notes"]:  # type: ignore[attr-defined]
        print(f"note: {note}")
    print(f"wrote {out.with_suffix('.json')} and {out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
