"""Is a step lost or done twice when a Ray node goes? 1,000 durable tasks for each fault.

Run as `python scripts/drill_ray [--tasks 1000] [--faults none,kill,notice]` with the extra `ray`.
A cluster of virtual nodes on this machine, a pool of two replicas of four tool slots, and one
worker with tasks of one tool step each. When a third of them is done,

- `kill`: a node is killed with all that runs there, while another one has room;
- `notice`: a node is given notice as a spot machine is (`ray drain-node`), and killed as soon as
  its replica takes nothing new: much sooner than providers do.

Then the log is read. Lost: a task that did not succeed, or whose step has no result. Doubled: a
step with two results. Executions beyond one per step are work done again. Fails where something is
lost or doubled, or `none` did something again.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import noted_tool  # noqa: E402

from steelyard.config.catalog_table import load_catalog  # noqa: E402
from steelyard.config.settings import load_settings  # noqa: E402
from steelyard.domain.events import (  # noqa: E402
    AttemptFinished,
    Event,
    ReplicaChanged,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.placement.policy import CheapestFeasible  # noqa: E402
from steelyard.pools.scripted import ScriptedLlmPool  # noqa: E402
from steelyard.runtime.clock import WallClock  # noqa: E402
from steelyard.runtime.context import TaskContext  # noqa: E402
from steelyard.runtime.definitions import task, tool  # noqa: E402
from steelyard.runtime.live import live_fleet  # noqa: E402
from steelyard.runtime.worker import Worker, WorkerSettings  # noqa: E402
from steelyard.store.event_store import EventStore, read_store  # noqa: E402
from steelyard.store.open_store import open_store  # noqa: E402
from steelyard.store.tasks import Submission  # noqa: E402

FAULTS = ("none", "kill", "notice")
_LABELS = {"kind": "drill"}
_PATIENCE_S = 300.0
_CONFIG = """
[pools.nodes]
kind = "ray"
runs = "tools"
ray_address = "{address}"
labels = {{ kind = "drill" }}
min_replicas = 2
max_replicas = 2
slots = 4
sandbox = "off"
python_paths = ["{folder}"]
"""
NOTED = tool(timeout_s=120.0)(noted_tool.noted)


@task(name="noting")
async def noting(ctx: TaskContext, notes: str, key: str) -> str:
    """One step on whatever node there is."""
    return await ctx.tool(NOTED, notes=notes, key=key)


class Outcome(NamedTuple):
    """What a drill found.

    Attributes:
        lost: Tasks without success, and steps without a result.
        doubled: Steps with more than one.
        again: Executions beyond one per step.
        failed: Attempts that failed, by code.
        seconds: From the first task to the last.
    """

    lost: int
    doubled: int
    again: int
    failed: dict[str, int]
    seconds: float


def judge(events: list[Event], tasks: int, notes: Path) -> Outcome:
    """Read the log against what was performed."""
    results: Counter[str] = Counter()
    good: set[str] = set()
    failed: Counter[str] = Counter()
    for event in events:
        if isinstance(event, AttemptFinished):
            results[event.task_id] += event.outcome == "ok"
            failed.update([event.error_code] if event.outcome != "ok" else [])
        elif isinstance(event, TaskFinished) and event.status == "succeeded":
            good.add(event.task_id)
    wanted = [f"run-{number}" for number in range(tasks)]
    performed = len(notes.read_text(encoding="ascii").split())
    return Outcome(
        lost=sum(results[one] == 0 or one not in good for one in wanted),
        doubled=sum(results[one] > 1 for one in wanted),
        again=performed - tasks,
        failed=dict(failed),
        seconds=0.0,
    )


async def drill(fault: str, tasks: int, folder: Path, cluster: Any) -> Outcome:  # noqa: ANN401
    """Run all tasks, with the fault when a third of them is done."""
    first = cluster.add_node(num_cpus=1, labels=_LABELS)
    nodes = [first, cluster.add_node(num_cpus=1, labels=_LABELS)]
    config, notes = folder / "steelyard.toml", folder / "notes.txt"
    config.write_text(_CONFIG.format(address=cluster.address, folder=HERE), encoding="utf-8")
    settings = load_settings(config)
    with open_store(folder / "events.db") as store:
        async with (
            live_fleet(settings, load_catalog(), CheapestFeasible(), store) as dispatcher,
            asyncio.timeout(_PATIENCE_S),
        ):
            moved = asyncio.Event()
            dispatcher.subscribe(lambda event: moved.set() if _is_down(event) else None)
            # The room that a replica moves to.
            nodes.append(cluster.add_node(num_cpus=1, labels=_LABELS))
            shown = (ScriptedLlmPool(), "none")
            worker = Worker(store, dispatcher, shown, (noting,), WorkerSettings(slots=40))
            async with worker.working():
                begun_s = time.monotonic()
                await submit(store, tasks, notes)
                await until_ended(store, tasks // 3)
                if fault == "notice":
                    await asyncio.to_thread(_notice, str(cluster.address), str(first.node_id))
                    await moved.wait()
                if fault != "none":
                    cluster.remove_node(nodes.pop(0), allow_graceful=False)
                await until_ended(store, tasks)
                took_s = time.monotonic() - begun_s
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
        return judge(list(read_store(store)), tasks, notes)._replace(seconds=took_s)


def _is_down(event: Event) -> bool:
    return isinstance(event, ReplicaChanged) and not event.up


def _notice(address: str, node_id: str) -> None:
    """What a node's own watcher calls when the provider takes the machine back."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address]
    command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot notice", "--deadline-remaining-seconds", "120"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


async def submit(store: EventStore, tasks: int, notes: Path) -> None:
    """Put the tasks into the store."""
    clock = WallClock()
    waiting = [
        store.submit(
            Submission(
                event=TaskSubmitted(
                    t_s=clock.now_s(),
                    task_id=f"run-{number}",
                    agent="noting",
                    arguments={"notes": str(notes), "key": f"run-{number}"},
                )
            )
        )
        for number in range(tasks)
    ]
    await asyncio.gather(*map(asyncio.wrap_future, waiting))


async def until_ended(store: EventStore, count: int) -> None:
    """Wait until so many tasks have ended, well or not."""
    while True:
        good = await asyncio.wrap_future(store.tasks(state="succeeded", limit=2 * count))
        bad = await asyncio.wrap_future(store.tasks(state="failed", limit=2 * count))
        if len(good) + len(bad) >= count:
            return
        await asyncio.sleep(0.1)


def main() -> None:
    """Drill and tell; ends with status 1 where something was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000, help="per fault")
    parser.add_argument("--faults", default=",".join(FAULTS))
    given = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's workers are nicer than all others by default, and starve on a machine that is busy.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray wants it so
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the environment

    head = {"num_cpus": 0, "include_dashboard": False, "labels": {"role": "head"}}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    is_good = True
    print(f"{given.tasks} tasks of one tool step per fault; {os.cpu_count()} cores", flush=True)
    try:
        for fault in given.faults.split(","):
            with tempfile.TemporaryDirectory() as folder:
                found = asyncio.run(drill(fault, given.tasks, Path(folder), cluster))
            bad = found.lost or found.doubled or (fault == "none" and found.again)
            is_good = is_good and not bad
            print(
                f"{fault:6} lost {found.lost}, doubled {found.doubled}; done again {found.again},"
                f" failed attempts {found.failed}, {found.seconds:.1f} s",
                flush=True,
            )
    finally:
        cluster.shutdown()
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
