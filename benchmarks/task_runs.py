"""What benchmarks/tasks.py measures: runs of small durable tasks on a store."""

import asyncio
import itertools
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import uvloop

from steelyard.domain.events import SignalSent, TaskResumed
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store

FREE = TaskLimits()
_RUN, _NUMBERS = uuid.uuid4().hex, itertools.count()
AT_ONCE = 100
LEASE_S = 1.0


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast tasks of ten steps ran.

    Attributes:
        sequential: Tasks per second, one after the other.
        concurrent: Tasks per second, 100 at once.
        cpu_s_sequential: CPU seconds of the process per 1,000 tasks, one after the other.
        cpu_s_concurrent: The same, 100 at once.
        database_cpu_s: CPU seconds of the database server per 1,000 tasks, over both.
    """

    sequential: float
    concurrent: float
    cpu_s_sequential: float
    cpu_s_concurrent: float
    database_cpu_s: float = 0.0


def noop(number: int) -> int:
    """Nothing."""
    return number


@task(name="ten")
async def ten(ctx: TaskContext) -> None:
    """Ten steps."""
    for number in range(10):
        await ctx.step(noop, number)


@task(name="long")
async def long(ctx: TaskContext, steps: int) -> None:
    """Many steps, then a signal to wait for."""
    for number in range(steps):
        await ctx.step(noop, number)
    await ctx.signal("go")


@task(name="holds")
async def holds(ctx: TaskContext) -> None:
    """Two steps, of which the second takes long: a task that only waited would be parked."""
    await ctx.step(noop, 1)
    await ctx.step(asyncio.sleep, 3.0 * LEASE_S)


def worker(store: EventStore, lease_s: float = 10.0) -> Worker:
    """A worker without pools."""
    dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
    settings = WorkerSettings(slots=AT_ONCE, lease_s=lease_s, look_s=0.1)
    return Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (ten, long, holds), settings)


async def one(working: Worker) -> None:
    """One task of ten steps: submitted, run, and its end on disk."""
    # A uuid4 costs as much as a step does where the kernel's random numbers are slow.
    task_id = f"{_RUN}-{next(_NUMBERS)}"
    await working.submit(ten, task_id, FREE, {})
    assert (await working.result(task_id)).status == "succeeded"


async def many(working: Worker, tasks: int) -> None:
    """Tasks, 100 at once."""
    left = iter(range(tasks))

    async def client() -> None:
        for _ in left:
            await one(working)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def speed(where: str, tasks: int, sequential: int) -> Speed:
    """Run tasks one after the other, and then 100 at once."""
    with open_store(where) as store:
        async with worker(store).working() as working:
            await one(working)
            start_s, start_cpu_s = time.perf_counter(), cpu_s()
            for _ in range(sequential):
                await one(working)
            sequential_s, sequential_cpu_s = time.perf_counter() - start_s, cpu_s() - start_cpu_s
            start_s, start_cpu_s = time.perf_counter(), cpu_s()
            await many(working, tasks)
            concurrent_s, concurrent_cpu_s = time.perf_counter() - start_s, cpu_s() - start_cpu_s
    return Speed(
        sequential=sequential / sequential_s,
        concurrent=tasks / concurrent_s,
        cpu_s_sequential=1000 * sequential_cpu_s / sequential,
        cpu_s_concurrent=1000 * concurrent_cpu_s / tasks,
    )


async def share(where: str, tasks: int) -> None:
    """Be one of several workers: say that all is ready, wait for a line, run tasks, tell."""
    with open_store(where) as store:
        async with worker(store).working() as working:
            await one(working)
            print("ready", flush=True)
            sys.stdin.readline()
            start_s, start_cpu_s = time.time(), cpu_s()
            await many(working, tasks)
            told = {"start_s": start_s, "end_s": time.time(), "cpu_s": cpu_s() - start_cpu_s}
            print(json.dumps(told), flush=True)


def with_workers(program: str, where: str, workers: int, tasks: int) -> tuple[float, float]:
    """Tasks per second, and CPU seconds of all workers per 1,000 tasks, with so many processes."""
    own = tasks // workers
    command = [sys.executable, program, "--share", str(own), "--store", where]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(workers)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [json.loads(process.communicate(timeout=300)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    took_s = max(run["end_s"] for run in told) - min(run["start_s"] for run in told)
    done = own * workers
    return done / took_s, 1000 * sum(run["cpu_s"] for run in told) / done


async def resume_s(where: str, steps: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, from a worker's start to the end of a task so long recorded."""
    task_id = uuid.uuid4().hex
    with open_store(where) as store:
        async with worker(store).working() as working:
            await working.submit(long, task_id, FREE, {"steps": steps})
            while len(await asyncio.wrap_future(store.journal(task_id))) <= steps:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        store.append(SignalSent(t_s=0.0, task_id=task_id, name="go"))
        store.durable().result()
        start_s, start_cpu_s = time.perf_counter(), cpu_s()
        async with worker(store).working() as working:
            await working.result(task_id)
            return time.perf_counter() - start_s, cpu_s() - start_cpu_s


async def takeover_s(program: str, where: str) -> float:
    """Seconds from kill -9 of a worker to the moment a peer has its task."""
    task_id = uuid.uuid4().hex
    with open_store(where) as store:
        async with worker(store, LEASE_S).working() as peer:
            other = subprocess.Popen(  # noqa: S603, ASYNC220
                [sys.executable, program, "--hang", task_id, "--store", where]
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
            await working.submit(holds, task_id, FREE, {})
            await working.result(task_id)


def resident_bytes() -> int:
    """Resident memory of this process, now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def memory(where: str, tasks: int, every: int) -> list[tuple[int, int]]:
    """Run tasks; (tasks so far, resident bytes) every so many."""
    found: list[tuple[int, int]] = []
    with open_store(where) as store:
        async with worker(store).working() as working:
            for done in range(every, tasks + 1, every):
                await many(working, every)
                found.append((done, resident_bytes()))
                print(f"  {done:7} tasks: {found[-1][1] / 1e6:6.1f} MB", flush=True)
    return found


def file_bytes_per_task(folder: Path, tasks: int) -> float:
    """Bytes that one task of ten steps takes in a SQLite store."""
    path = folder / "size.db"
    uvloop.run(speed(str(path), tasks, 1))
    return sum(file.stat().st_size for file in folder.glob("size.db*")) / tasks


def flushes_per_s(folder: Path) -> float:
    """Writes of a page with fdatasync per second: what the disk allows, just now."""
    path = folder / "flushes"
    with path.open("wb", buffering=0) as file:
        file.write(bytes(1 << 22))
        os.fsync(file.fileno())
        start_s = time.perf_counter()
        for number in range(100):
            os.pwrite(file.fileno(), bytes(8192), 8192 * number)
            os.fdatasync(file.fileno())
        return 100 / (time.perf_counter() - start_s)
