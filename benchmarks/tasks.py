"""How fast is the durable runtime? Tasks of ten no-op steps, recovery, and resuming; with peers.

Run as `python benchmarks/tasks.py [--rounds N] [--peers PYTHON] [--many]`. PostgreSQL is measured
where Debian's package is present: a server of the benchmark's own, on a socket, with fsync. The
peers are measured in the same rounds, each in a process of its own, by an interpreter that has
them:

    python -m venv peers
    peers/bin/pip install dbos langgraph langgraph-checkpoint-sqlite "psycopg[binary]"
    python benchmarks/tasks.py --peers peers/bin/python

A task's submission, its ten steps and its end are each on disk before they are acknowledged.
There is no chance in it, so there is no seed.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.store.postgres_server import MISSING, postgres_server  # noqa: E402

from steelyard.domain.events import SignalSent, TaskResumed  # noqa: E402
from steelyard.placement.policy import CheapestFeasible  # noqa: E402
from steelyard.pools.scripted import ScriptedLlmPool  # noqa: E402
from steelyard.runtime.clock import WallClock  # noqa: E402
from steelyard.runtime.context import TaskContext  # noqa: E402
from steelyard.runtime.definitions import task  # noqa: E402
from steelyard.runtime.dispatcher import Dispatcher  # noqa: E402
from steelyard.runtime.open_tasks import TaskLimits  # noqa: E402
from steelyard.runtime.recorder import Recorder  # noqa: E402
from steelyard.runtime.worker import Worker, WorkerSettings  # noqa: E402
from steelyard.store.event_store import EventStore  # noqa: E402
from steelyard.store.open_store import open_store  # noqa: E402

FREE = TaskLimits()
AT_ONCE = 100
LEASE_S = 1.0
STEPS = 1000


def noop(number: int) -> int:
    """Nothing."""
    return number


@task(name="ten")
async def ten(ctx: TaskContext) -> None:
    """Ten steps."""
    for number in range(10):
        await ctx.step(noop, number)


@task(name="long")
async def long(ctx: TaskContext) -> None:
    """Many steps, then a signal to wait for."""
    for number in range(STEPS):
        await ctx.step(noop, number)
    await ctx.signal("go")


@task(name="hangs")
async def hangs(ctx: TaskContext) -> None:
    """Two steps, of which the second takes long: a task that only waited would be parked."""
    await ctx.step(noop, 1)
    await ctx.step(asyncio.sleep, 3.0 * LEASE_S)


def worker(store: EventStore, lease_s: float = 10.0) -> Worker:
    """A worker without pools."""
    dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
    settings = WorkerSettings(slots=AT_ONCE, lease_s=lease_s, look_s=0.1)
    return Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (ten, long, hangs), settings)


async def throughput(where: str, tasks: int, sequential: int) -> dict[str, float]:
    """Tasks per second, one after the other and many at once."""
    with open_store(where) as store:
        async with worker(store).working() as working:

            async def one(_: int) -> None:
                task_id = uuid.uuid4().hex
                await working.submit(ten, task_id, FREE, {})
                assert (await working.result(task_id)).status == "succeeded"

            places = asyncio.Semaphore(AT_ONCE)

            async def placed(number: int) -> None:
                async with places:
                    await one(number)

            await one(0)
            start_s = time.perf_counter()
            for number in range(sequential):
                await one(number)
            sequential_s = time.perf_counter() - start_s
            start_s = time.perf_counter()
            await asyncio.gather(*(placed(number) for number in range(tasks)))
            concurrent_s = time.perf_counter() - start_s
    return {"sequential": sequential / sequential_s, "concurrent": tasks / concurrent_s}


async def resume_s(where: str) -> float:
    """Seconds from a worker's start to the end of a task with 1,000 recorded steps."""
    task_id = uuid.uuid4().hex
    with open_store(where) as store:
        async with worker(store).working() as working:
            await working.submit(long, task_id, FREE, {})
            while len(await asyncio.wrap_future(store.journal(task_id))) <= STEPS:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        store.append(SignalSent(t_s=0.0, task_id=task_id, name="go"))
        store.durable().result()
        start_s = time.perf_counter()
        async with worker(store).working() as working:
            await working.result(task_id)
            return time.perf_counter() - start_s


async def recovery_s(where: str) -> float:
    """Seconds from kill -9 of a worker to the moment a peer has its task."""
    task_id = uuid.uuid4().hex
    with open_store(where) as store:
        async with worker(store, LEASE_S).working() as peer:
            other = subprocess.Popen(  # noqa: S603, ASYNC220
                [sys.executable, __file__, "--hang", task_id, "--store", where]
            )
            while len(await asyncio.wrap_future(store.journal(task_id))) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            # Just after a renewal is the worst moment: the whole lease is still to come.
            await asyncio.sleep(LEASE_S)
            other.kill()
            killed_s = time.perf_counter()
            other.wait()
            while True:
                events = await asyncio.wrap_future(store.journal(task_id))
                if any(isinstance(event, TaskResumed) for event in events):
                    break
                await asyncio.sleep(0.01)
            taken_s = time.perf_counter() - killed_s
            await peer.result(task_id)
    return taken_s


async def hang(where: str, task_id: str) -> None:
    """Be the worker that is killed: hold one task until then."""
    with open_store(where) as store:
        async with worker(store, LEASE_S).working() as working:
            await working.submit(hangs, task_id, FREE, {})
            await working.result(task_id)


def peer(python: str, program: str, where: str, tasks: int) -> dict[str, float]:
    """What a peer's program measures in a process of its own."""
    path = ROOT / "benchmarks" / "peers" / program
    ran = subprocess.run(  # noqa: S603
        [python, path, where, str(tasks)], capture_output=True, text=True, check=True, timeout=300
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def told(name: str, rounds: list[dict[str, float]]) -> None:
    """Print one row."""
    line = f"{name:28}"
    for kind in ("sequential", "concurrent"):
        values = [one[kind] for one in rounds]
        median, low, high = statistics.median(values), min(values), max(values)
        line += f" {median:9.1f} ({low:.0f}-{high:.0f})"
    print(line)


def memory_mb() -> float:
    """Peak resident memory up to now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flushes_per_s(folder: Path) -> float:
    """Appends of 200 bytes with fdatasync per second: what the disk allows, just now."""
    path = folder / "flushes"
    with path.open("ab", buffering=0) as file:
        start_s = time.perf_counter()
        for _ in range(200):
            file.write(b"x" * 200)
            os.fdatasync(file.fileno())
        return 200 / (time.perf_counter() - start_s)


def compare(rounds: int, peers: str, folder: Path, stores: dict[str, Callable[[int], str]]) -> None:
    """Print tasks per second of every runtime and store, measured in turns."""
    results: dict[str, list[dict[str, float]]] = {}
    flushes: list[float] = []
    for number in range(rounds):
        flushes.append(flushes_per_s(folder))
        for store, address in stores.items():
            tasks = 1000 if store == "SQLite" else 400
            measured = uvloop.run(throughput(address(number), tasks, 100))
            results.setdefault(f"steelyard {store}", []).append(measured)
            if not peers:
                continue
            where = address(number)
            if store == "SQLite":
                where = f"sqlite:///{folder / f'dbos{number}.db'}"
            measured = peer(peers, "tasks_dbos.py", where, 100)
            results.setdefault(f"DBOS {store}", []).append(measured)
            if store == "SQLite":
                path = str(folder / f"langgraph{number}.db")
                measured = peer(peers, "tasks_langgraph.py", path, 100)
                results.setdefault(f"LangGraph {store}", []).append(measured)
    told_flushes = ", ".join(f"{one:.0f}" for one in flushes)
    print(f"fdatasync/s before each round: {told_flushes}; load {os.getloadavg()[0]:.1f}")
    print(f"tasks/s of 10 steps, median of {rounds} rounds (range)")
    print(f"{'':28} {'one by one':>12} {'100 at once':>16}")
    for name, rows in results.items():
        told(name, rows)


def resume_and_recover(rounds: int, stores: dict[str, Callable[[int], str]]) -> None:
    """Print how fast a task goes on, after a restart and after its worker's death."""
    for store, address in stores.items():
        resumed = [uvloop.run(resume_s(address(90 + n))) for n in range(rounds)]
        print(f"resume of {STEPS} steps, {store}: {1e3 * statistics.median(resumed):.0f} ms")
        taken = [uvloop.run(recovery_s(address(190 + n))) for n in range(rounds)]
        print(
            f"kill -9 to takeover, lease {LEASE_S:g} s, {store}: "
            f"{statistics.median(taken):.2f} s (longest {max(taken):.2f})"
        )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="", help="interpreter that has the peers")
    parser.add_argument("--many", action="store_true", help="100,000 tasks, for the memory")
    parser.add_argument("--store", default="")
    parser.add_argument("--hang", default="")
    asked = parser.parse_args()
    if asked.hang:
        uvloop.run(hang(asked.store, asked.hang))
        return
    now = dt.datetime.now(tz=dt.UTC).isoformat(timespec="minutes")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{now}  {machine}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores: dict[str, Callable[[int], str]] = {
            "SQLite": lambda number: str(folder / f"own{number}.db")
        }
        if not MISSING:
            server = stack.enter_context(postgres_server(fsync=True))
            stores["PostgreSQL"] = lambda _: server.new_database()
        compare(asked.rounds, asked.peers, folder, stores)
        resume_and_recover(asked.rounds, stores)
        if asked.many:
            uvloop.run(throughput(str(folder / "many.db"), 10_000, 1))
            before_mb = memory_mb()
            uvloop.run(throughput(str(folder / "more.db"), 100_000, 1))
            after_mb = memory_mb()
            print(
                f"peak memory: {before_mb:.0f} MB after 10,000 tasks, {after_mb:.0f} MB after more"
            )


if __name__ == "__main__":
    main()
