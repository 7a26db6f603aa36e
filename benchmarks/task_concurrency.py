"""What a thousand running tasks cost their worker: `benchmarks/tasks.py --concurrent` runs it."""

import asyncio
import multiprocessing
import os
import time

import msgspec
import task_runs as runs
import uvloop

from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.open_store import open_store

_STEPS = 10
_STEP_S = 2.0


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """What tasks cost that run at once, each with a step of two seconds at a time.

    Attributes:
        bytes_per_task: Resident memory that one takes, half way.
        cpu_frac: Share of a core that all of them take.
        cpu_ms_per_step: CPU of the process per step.
        took_s: Seconds from the first submission to the last end; without any cost it is 20.
    """

    bytes_per_task: float
    cpu_frac: float
    cpu_ms_per_step: float
    took_s: float


@task(name="steps")
async def steps(ctx: TaskContext) -> None:
    """Ten steps that wait, as for a model."""
    for _ in range(_STEPS):
        await ctx.step(asyncio.sleep, _STEP_S)


async def concurrency(where: str, tasks: int) -> Concurrency:
    """Run so many tasks at once."""
    with open_store(where) as store:
        dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
        settings = WorkerSettings(slots=tasks + 1)
        gateway = (ScriptedLlmPool(), "none")
        async with Worker(store, dispatcher, gateway, (steps,), settings).working() as worker:
            # What is allocated once is not counted.
            await worker.submit(steps, "first", TaskLimits(), {})
            await asyncio.sleep(_STEP_S)
            before_bytes = runs.resident_bytes()
            start_s, start_cpu_s = time.perf_counter(), runs.cpu_s()
            names = [f"t{number}" for number in range(tasks)]
            await asyncio.gather(*(worker.submit(steps, one, TaskLimits(), {}) for one in names))
            await asyncio.sleep(_STEPS * _STEP_S / 2.0)
            used_bytes = runs.resident_bytes() - before_bytes
            await asyncio.gather(*(worker.result(one) for one in names))
            took_s, cpu_s = time.perf_counter() - start_s, runs.cpu_s() - start_cpu_s
    return Concurrency(
        bytes_per_task=used_bytes / tasks,
        cpu_frac=cpu_s / took_s,
        cpu_ms_per_step=1e3 * cpu_s / (tasks * _STEPS),
        took_s=took_s,
    )


def _here(where: str, tasks: int) -> Concurrency:
    return uvloop.run(concurrency(where, tasks))


def tell(tasks: int, stores: dict[str, str]) -> None:
    """Print what so many running tasks cost, in every store."""
    for store, where in stores.items():
        # In a process of its own: memory that another run gave back would be taken again.
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            found = fresh.apply(_here, (where, tasks))
        print(
            f"{store}: {tasks} tasks at once take {found.bytes_per_task * tasks / 1e6:.1f} MB and "
            f"{100 * found.cpu_frac:.1f} % of a core, {found.cpu_ms_per_step:.2f} ms of CPU per "
            f"step; all done after {found.took_s:.1f} s of {_STEPS * _STEP_S:g} s "
            f"(load {os.getloadavg()[0]:.1f})",
            flush=True,
        )
