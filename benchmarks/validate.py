"""Does the simulator agree with the live system? The same arrivals, once for real and once not.

Run as `python benchmarks/validate.py [--config FILE] [--loads 0.3,0.6] [--tasks 40] [--repeat]`.

The live side is everything there is: engines, sandboxed tools, the gateway over HTTP, the event
log. Pools are those of `--config`, or else an embedded engine and tools on this machine. Tasks
arrive as a Poisson process at shares of what the fleet can serve, by the cost function. Then the
simulator gets the recorded arrivals with each step's tokens, CPU seconds and the time a tool waited
beside them, the same pools and policy, and no measured time of a model.

What it knows of the machine was measured outside of the runs that it predicts: curves by
`steelyard measure` right before and right after each load (their mean; engines with a figures file
keep theirs); by the tasks of the warm-up, which run one after the other, the seconds that pass
between two steps, and the factor by which live steps take longer than the profile says.

Printed per load, live and simulated: task latency (mean, p50, p95), step latency by kind, cost per
task, goodput; errors are relative to live. The distance is Wasserstein's of the task latencies,
over their mean. `--repeat` runs every load twice and compares the second live run with the first:
no simulator can be expected to come closer than the live system comes to itself. `--add FILE` takes
results of earlier calls into the table of errors at the end, for machines that are lent by the
minute; runs while which the machine's speed changed much are also told apart.
"""

import argparse
import asyncio
import datetime as dt
import os
import platform
import random
import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop

from steelyard.cli.demo.live import MODEL, local_pools
from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_settings import EmbeddedPoolSettings, PoolSettings, ToolPoolSettings
from steelyard.config.settings import Settings, load_settings
from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepPlaced
from steelyard.domain.pool import LlmCurve, PoolSpec
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
from steelyard.sim.conditions import Conditions
from steelyard.sim.serving import Serving
from steelyard.store.sqlite_log import SqliteEventLog, read_events

AGENTS = Path(__file__).with_name("validation")
sys.path.insert(0, str(AGENTS))

from comparison import Row, compare, print_errors, print_row  # noqa: E402
from conversation import conversation  # noqa: E402
from profiles import correction, mean_curve, profile, slowed, swing_frac  # noqa: E402

WARM_UP, WARM_UP_TASKS = "warm-", 8
DEADLINE_S = 60.0
# Two profiles further apart than this say that the machine was another one in between.
STEADY_FRAC = 0.10
# OpenVINO GenAI keeps prefixes in blocks on CPUs, and a first token takes a pass over the weights.
OPENVINO = Serving(cache_block_tokens=32, floor_stalls=True)

# Curves before and after a load, by pool.
Around = dict[str, tuple[LlmCurve, LlmCurve]]


class Live:
    """The live side while it runs."""

    def __init__(self, asked: argparse.Namespace, settings: Settings, out: Path) -> None:
        self.asked = asked
        self.settings = settings
        self.out = out
        self.around: dict[str, Around] = {}
        self._profiles = 0
        self._unknown = [
            (name, pool)
            for name, pool in settings.pools.items()
            if isinstance(pool, EmbeddedPoolSettings) and pool.figures is None
        ]

    async def run(self, log_path: Path) -> None:
        """Measure, warm up, run every load, and write the log."""
        curves = await self._profile()
        with SqliteEventLog(log_path) as log:
            async with (
                live_fleet(self._ready(), load_catalog(), CheapestFeasible(), log) as dispatcher,
                serve(GatewaySettings(port=0), dispatcher) as server,
            ):
                client = OpenAiEndpointPool([server.base_url], [self.asked.model])
                await client.start()
                runner = TaskRunner(dispatcher, client, self.asked.model)
                chance = random.Random(self.asked.seed)  # noqa: S311 - arrivals, not secrets
                for at in range(WARM_UP_TASKS):
                    await self._one(runner, f"{WARM_UP}{at}", chance)
                await asyncio.wrap_future(log.durable())
                per_s = _capacity_tasks_per_s(tuple(read_events(log_path)))
                print(f"capacity by the cost function: {per_s:.2f} tasks/s")
                for prefix, share in runs_of(self.asked):
                    await self._load(runner, prefix, share * per_s)
                    before, curves = curves, await self._profile()
                    self.around[prefix] = {name: (before[name], curves[name]) for name in curves}
                await client.close()

    async def _load(self, runner: TaskRunner, prefix: str, tasks_per_s: float) -> None:
        # The second run of a load has the same tasks at the same times.
        chance = random.Random(f"{self.asked.seed} {prefix[1:]}")  # noqa: S311 - not secrets
        async with asyncio.TaskGroup() as group:
            for number in range(self.asked.tasks):
                group.create_task(self._one(runner, f"{prefix}{number:05d}", chance))
                await asyncio.sleep(chance.expovariate(tasks_per_s))

    async def _one(self, runner: TaskRunner, name: str, chance: random.Random) -> None:
        limits = TaskLimits(deadline_after_s=DEADLINE_S)
        seed = chance.randrange(1 << 30)
        await runner.run(conversation, name, limits, seed, self.asked.words)

    async def _profile(self) -> dict[str, LlmCurve]:
        number, self._profiles = self._profiles, self._profiles + 1
        return {
            name: await profile(pool, self._figures(name, number)) for name, pool in self._unknown
        }

    def _figures(self, pool: str, number: int) -> Path:
        return self.out / f"{pool}-{number}.json"

    def _ready(self) -> Settings:
        """Pools with measured curves, and with the agent's tools in sight."""
        pools: dict[str, PoolSettings] = dict(self.settings.pools)
        for name, pool in pools.items():
            if isinstance(pool, ToolPoolSettings):
                paths = (*pool.python_paths, AGENTS)
                pools[name] = msgspec.structs.replace(pool, python_paths=paths)
        for name, pool in self._unknown:
            pools[name] = msgspec.structs.replace(pool, figures=self._figures(name, 0))
        return msgspec.structs.replace(self.settings, pools=pools)


def main() -> None:
    """Measure, run, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="pools to run; an engine and tools by default")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--loads", default="0.3,0.6,0.9", help="shares of the fleet's capacity")
    parser.add_argument("--tasks", type=int, default=40, help="per load")
    parser.add_argument("--words", type=int, default=60, help="mean length of a user's message")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", action="store_true", help="compare live with live as well")
    parser.add_argument("--add", type=Path, action="append", default=[], help="earlier results")
    parser.add_argument("--out", type=Path, help="folder for the log, figures and result")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="steelyard-validate-"))
    out.mkdir(parents=True, exist_ok=True)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; seed {asked.seed}"
    )
    settings = load_settings(asked.config) if asked.config else Settings(pools=local_pools())
    log_path = out / "live.db"
    log_path.unlink(missing_ok=True)
    live = Live(asked, settings, out)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live.run(log_path))
    rows = _rows(live, tuple(read_events(log_path)), str(log_path))
    result = out / "validation.json"
    result.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    for earlier in asked.add:
        rows += msgspec.json.decode(earlier.read_bytes(), type=list[Row])
    _print_all(rows)
    print(f"\nlog and figures: {out}; result: {result}")


def runs_of(asked: argparse.Namespace) -> list[tuple[str, float]]:
    """What the ids of each run's tasks begin with, and its load."""
    shares = [float(share) for share in asked.loads.split(",")]
    passes = "pq" if asked.repeat else "p"
    return [(f"{one}{share:g}-", share) for share in shares for one in passes]


def _rows(live: Live, events: tuple[Event, ...], source: str) -> list[Row]:
    ledger = Ledger.of(events)
    specs = tuple(event.spec for event in events if isinstance(event, PoolAdded))
    between_s = between_steps_s(ledger)
    print(f"between two steps, by the warm-up: {1000 * between_s:.1f} ms")
    conditions = Conditions(
        between_steps_s=between_s,
        serving={
            name: OPENVINO
            for name, pool in live.settings.pools.items()
            if isinstance(pool, EmbeddedPoolSettings) and pool.engine == "openvino"
        },
    )
    first = live.around[runs_of(live.asked)[0][0]]
    factors = {name: correction(ledger, name, first[name][0], WARM_UP) for name in first}
    for name, factor in factors.items():
        print(f"service time over the profile's, by the warm-up: {factor:.3f} in {name}")
    whole = workload_of(ledger, "live", source)
    rows: list[Row] = []
    for prefix, share in runs_of(live.asked):
        around = live.around[prefix]
        swing = max((swing_frac(*pair) for pair in around.values()), default=0.0)
        run = simulate(
            _part(whole, prefix),
            tuple(_as_measured(spec, around, factors) for spec in specs),
            CheapestFeasible(),
            live.asked.seed,
            conditions,
        )
        name = f"load {share:g} seed {live.asked.seed}, simulated against live"
        if prefix.startswith("q"):
            name = f"{name}, again"
        rows.append(compare(name, (ledger, prefix), (Ledger.of(run.events), prefix), swing))
        if prefix.startswith("q"):
            name = f"load {share:g} seed {live.asked.seed}, live again against live"
            swing = max(swing, rows[-2].swing_frac)
            rows.append(compare(name, (ledger, f"p{prefix[1:]}"), (ledger, prefix), swing))
    return rows


def _as_measured(spec: PoolSpec, around: Around, factors: dict[str, float]) -> PoolSpec:
    if spec.name not in around:
        return spec
    curve = slowed(mean_curve(*around[spec.name]), factors[spec.name])
    return msgspec.structs.replace(spec, llm_curves=dict.fromkeys(spec.llm_curves, curve))


def _part(workload: Workload, prefix: str) -> Workload:
    """The tasks of one load, the first one at 0 s."""
    tasks = [task for task in workload.tasks if task.task_id.startswith(prefix)]
    start_s = tasks[0].arrival_s
    return msgspec.structs.replace(
        workload,
        tasks=tuple(
            msgspec.structs.replace(task, arrival_s=task.arrival_s - start_s) for task in tasks
        ),
    )


def between_steps_s(ledger: Ledger) -> float:
    """Seconds of a task that are in none of its steps, per step, in the warm-up."""
    tasks = [task for task in ledger.tasks if task.task_id.startswith(WARM_UP)]
    steps = [one for one in ledger.attempts if one.step.task_id.startswith(WARM_UP)]
    whole_s = sum(task.finished_s - task.submitted_s for task in tasks)
    return max(0.0, whole_s - sum(one.latency_s for one in steps)) / max(1, len(steps))


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


def _print_all(rows: list[Row]) -> None:
    for row in rows:
        print_row(row)
    simulated = [row for row in rows if "live again" not in row.name]
    print_errors("simulated against live", simulated)
    steady = [row for row in simulated if row.swing_frac <= STEADY_FRAC]
    if len(steady) < len(simulated):
        title = f"of these, where the speed swung by at most {STEADY_FRAC:.0%}"
        print_errors(title, steady)
    print_errors("live again against live", [row for row in rows if "live again" in row.name])


if __name__ == "__main__":
    main()
