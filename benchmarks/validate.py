"""Does the simulator agree with the live system? The same arrivals, once for real and once not.

Run as `python benchmarks/validate.py [--config FILE] [--loads 0.3,0.6,0.9] [--tasks 40]`.

The live side is everything there is: engines, sandboxed tools, the gateway over HTTP, the event
log. Pools are those of `--config`, or else an embedded engine and tools on this machine; an engine
pool without a figures file is profiled by `steelyard measure` first, so the curves come from
other prompts than those they are tested on. Tasks arrive as a Poisson process at shares of what
the fleet can serve, by the cost function. Then the simulator gets the recorded arrivals with each
step's tokens, CPU seconds and the time a tool waited beside them, the same pools and policy, and no
measured time of a model.

Printed per load, live and simulated: task latency (mean, p50, p95), step latency by kind, cost per
task, goodput; errors are relative to live. The distance is Wasserstein's of the task latencies,
over their mean.
"""

import argparse
import asyncio
import datetime as dt
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop

from steelyard.cli.demo.live import MODEL, local_pools
from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings, ToolPoolSettings
from steelyard.config.settings import Settings, load_settings
from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepPlaced
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall
from steelyard.domain.workload import Workload
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.runtime.live import live_fleet
from steelyard.runtime.runner import TaskLimits, TaskRunner
from steelyard.sim import simulate
from steelyard.store.sqlite_log import SqliteEventLog, read_events

AGENTS = Path(__file__).with_name("validation")
sys.path.insert(0, str(AGENTS))

from conversation import conversation  # noqa: E402

WARM_UP_TASKS = 8
DEADLINE_S = 60.0


def main() -> None:
    """Measure, run, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="pools to run; an engine and tools by default")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--loads", default="0.3,0.6,0.9", help="shares of the fleet's capacity")
    parser.add_argument("--tasks", type=int, default=40, help="per load")
    parser.add_argument("--words", type=int, default=60, help="mean length of a user's message")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for the log, figures and result")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="steelyard-validate-"))
    out.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; seed {asked.seed}"
    )
    settings = load_settings(asked.config) if asked.config else Settings(pools=local_pools())
    pools = {name: _ready(name, pool, out) for name, pool in settings.pools.items()}
    settings = msgspec.structs.replace(settings, pools=pools)
    log_path = out / "live.db"
    log_path.unlink(missing_ok=True)
    loads = [float(share) for share in asked.loads.split(",")]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(settings, log_path, asked, loads))
    events = tuple(read_events(log_path))
    live = Ledger.of(events)
    workload = workload_of(live, "live", str(log_path))
    specs = tuple(event.spec for event in events if isinstance(event, PoolAdded))
    simulated = Ledger.of(simulate(workload, specs, CheapestFeasible(), asked.seed).events)
    rows = [
        _compare(f"load {share:g}", f"p{at}-", live, simulated, workload)
        for at, share in enumerate(loads)
    ]
    for row in rows:
        _print(row)
    (out / "validation.json").write_text(json.dumps(rows, indent=1))
    print(f"log, figures and result: {out}")


def _ready(name: str, pool: PoolSettings, out: Path) -> PoolSettings:
    """The pool with measured curves, and with the agent's tools in sight."""
    if isinstance(pool, ToolPoolSettings):
        return msgspec.structs.replace(pool, python_paths=(*pool.python_paths, AGENTS))
    if not isinstance(pool, EmbeddedPoolSettings) or pool.figures is not None:
        return pool
    figures = out / f"{name}.json"
    command = [sys.executable, "-m", "steelyard", "measure", "local", "--model", pool.model]
    command += ["--replicas", str(pool.replicas)]
    subprocess.run([*command, "--chat", "--out", str(figures)], check=True)  # noqa: S603 - our own
    return msgspec.structs.replace(pool, figures=figures)


async def _live(
    settings: Settings, log_path: Path, asked: argparse.Namespace, loads: list[float]
) -> None:
    with SqliteEventLog(log_path) as log:
        async with (
            live_fleet(settings, load_catalog(), CheapestFeasible(), log) as dispatcher,
            serve(GatewaySettings(port=0), dispatcher) as server,
        ):
            client = OpenAiEndpointPool([server.base_url], [asked.model])
            await client.start()
            runner = TaskRunner(dispatcher, client, asked.model)
            chance = random.Random(asked.seed)  # noqa: S311 - arrivals, not secrets
            for at in range(WARM_UP_TASKS):
                await _one(runner, f"warm-{at}", chance, asked.words)
            await log_durable(log)
            per_s = _capacity_tasks_per_s(tuple(read_events(log_path)))
            print(f"capacity by the cost function: {per_s:.2f} tasks/s")
            for at, share in enumerate(loads):
                async with asyncio.TaskGroup() as group:
                    for number in range(asked.tasks):
                        name = f"p{at}-{number:05d}"
                        group.create_task(_one(runner, name, chance, asked.words))
                        await asyncio.sleep(chance.expovariate(share * per_s))
            await client.close()


async def log_durable(log: SqliteEventLog) -> None:
    """Wait until all that was recorded is on disk."""
    await asyncio.wrap_future(log.durable())


async def _one(runner: TaskRunner, name: str, chance: random.Random, words: int) -> None:
    limits = TaskLimits(deadline_after_s=DEADLINE_S)
    await runner.run(conversation, name, limits, chance.randrange(1 << 30), words)


def _capacity_tasks_per_s(events: tuple[Event, ...]) -> float:
    """At how many of the warm-up's tasks per second is the first pool full?"""
    pools: dict[str, PoolSpec] = {}
    used_usd: dict[str, float] = {}
    placed: dict[tuple[str, int], str] = {}
    for event in events:
        if isinstance(event, PoolAdded):
            pools[event.spec.name] = event.spec
        elif isinstance(event, StepPlaced):
            placed[event.step.task_id, event.step.step_id] = event.decision.pool
        elif isinstance(event, AttemptFinished):
            pool = placed[event.task_id, event.step_id]
            used_usd[pool] = used_usd.get(pool, 0.0) + event.cost_usd
    rent_usd_per_s = {
        name: spec.usd_per_hour * spec.replicas / 3600.0 for name, spec in pools.items()
    }
    return min(WARM_UP_TASKS * rent_usd_per_s[name] / usd for name, usd in used_usd.items() if usd)


def _side(ledger: Ledger, prefix: str) -> dict[str, Any]:
    tasks = [task for task in ledger.tasks if task.task_id.startswith(prefix)]
    steps: dict[str, list[float]] = {"llm": [], "tool": []}
    for attempt in ledger.attempts:
        if attempt.step.task_id.startswith(prefix) and attempt.outcome == "ok":
            kind = "llm" if isinstance(attempt.step.call, LlmCall) else "tool"
            steps[kind].append(attempt.latency_s)
    span_s = max(t.finished_s for t in tasks) - min(t.submitted_s for t in tasks)
    return {
        "task_s": sorted(task.finished_s - task.submitted_s for task in tasks),
        "llm_s": sorted(steps["llm"]),
        "tool_s": sorted(steps["tool"]),
        "usd_per_task": math.fsum(task.cost_usd for task in tasks) / len(tasks),
        "goodput_per_s": sum(task.met_slo for task in tasks) / span_s,
    }


def _compare(
    name: str, prefix: str, live: Ledger, simulated: Ledger, workload: Workload
) -> dict[str, Any]:
    a, b = _side(live, prefix), _side(simulated, prefix)
    figures: dict[str, tuple[float, float]] = {}
    for what in ("task_s", "llm_s", "tool_s"):
        figures[f"{what} mean"] = (float(np.mean(a[what])), float(np.mean(b[what])))
        for q in (50, 95):
            figures[f"{what} p{q}"] = (
                float(np.percentile(a[what], q)),
                float(np.percentile(b[what], q)),
            )
    for what in ("usd_per_task", "goodput_per_s"):
        figures[what] = (a[what], b[what])
    grid = np.linspace(0.0, 1.0, 201)
    distance = float(
        np.mean(np.abs(np.quantile(a["task_s"], grid) - np.quantile(b["task_s"], grid)))
        / np.mean(a["task_s"])
    )
    return {"name": name, "tasks": len(a["task_s"]), "figures": figures, "distance_frac": distance}


def _print(row: dict[str, Any]) -> None:
    print(f"\n{row['name']}: {row['tasks']} tasks; distance {row['distance_frac']:.1%}")
    for what, (live, simulated) in row["figures"].items():
        error = (simulated - live) / live if live else math.nan
        print(f"  {what:16} live {live:12.6g}  simulated {simulated:12.6g}  {error:+7.1%}")


if __name__ == "__main__":
    main()
