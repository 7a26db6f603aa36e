"""What ten thousand sleeping tasks cost their worker: `benchmarks/tasks.py --waiting` runs it."""

import asyncio
import math
import time

import msgspec
import task_runs as runs

from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store

_WATCHED_S = 10.0
_LOOK_S = 0.2


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What sleeping tasks cost.

    Attributes:
        parked_s: Seconds from the first submission until all were parked.
        bytes_per_task: Resident memory that one parked task takes in its worker.
        cpu_frac: Share of a core that the worker uses while all of them sleep.
        idle_frac: The same with no task in the store.
        done_s: Seconds from the moment at which all of them are due until all have ended.
    """

    parked_s: float
    bytes_per_task: float
    cpu_frac: float
    idle_frac: float
    done_s: float


@task(name="nap")
async def nap(ctx: TaskContext, until_s: float) -> None:
    """Sleep until a moment that all of them share, between two steps."""
    await ctx.step(runs.noop, 1)
    await ctx.sleep(until_s - await ctx.step(time.time))
    await ctx.step(runs.noop, 2)


async def waiting(where: str, tasks: int, due_s: float) -> Waiting:
    """Let tasks sleep until `due_s` seconds from now, and end."""
    with open_store(where) as store:
        dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
        worker = Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (nap,))
        async with worker.working():
            idle_frac = await _cpu_frac()
            before_bytes, start_s = runs.resident_bytes(), time.time()
            until_s = start_s + due_s
            for first in range(0, tasks, runs.AT_ONCE):
                numbers = range(first, min(first + runs.AT_ONCE, tasks))
                await asyncio.gather(*(_submit(worker, number, until_s) for number in numbers))
            await _until(store, "waiting", tasks)
            parked_s = time.time() - start_s
            used_bytes = runs.resident_bytes() - before_bytes
            left_s = until_s - time.time()
            if left_s < _WATCHED_S:
                raise SystemExit(f"{left_s:.1f} s are left to watch them: raise --due")
            cpu_frac = await _cpu_frac()
            await asyncio.sleep(max(0.0, until_s - time.time()))
            await _until(store, "succeeded", tasks)
            done_s = time.time() - until_s
    return Waiting(
        parked_s=parked_s,
        bytes_per_task=used_bytes / tasks,
        cpu_frac=cpu_frac,
        idle_frac=idle_frac,
        done_s=done_s,
    )


async def _submit(worker: Worker, number: int, until_s: float) -> None:
    await worker.submit(nap, f"nap-{number}", runs.FREE, {"until_s": until_s})


async def _cpu_frac() -> float:
    """Share of a core that this process uses for a while."""
    start_s, used_s = time.perf_counter(), runs.cpu_s()
    await asyncio.sleep(_WATCHED_S)
    return (runs.cpu_s() - used_s) / (time.perf_counter() - start_s)


async def _until(store: EventStore, state: str, tasks: int) -> None:
    found = -math.inf
    while found < tasks:
        await asyncio.sleep(_LOOK_S)
        found = len(await asyncio.wrap_future(store.tasks(state=state, limit=tasks)))
