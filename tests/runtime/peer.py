"""One of several workers on a store: `python peer.py STORE`; see test_peers. Works until killed."""

import asyncio
import sys

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

LEASE_S = 1.0


async def slow_square(number: int) -> int:
    await asyncio.sleep(0.05)
    return number * number


@task(name="steady")
async def steady(ctx: TaskContext) -> int:
    total = 0
    for number in range(10):
        total += await ctx.step(slow_square, number)
    return total


@task(name="holds")
async def holds(ctx: TaskContext, what: str) -> None:
    """Never ends by itself."""
    if what == "step":
        await ctx.step(asyncio.Event().wait)
    elif what == "sleep":
        while True:
            await ctx.sleep(0.9)
    elif what == "signal":
        await ctx.signal("never")
    elif what == "gather":
        await ctx.gather(ctx.step(asyncio.Event().wait), ctx.signal("never"))
    else:
        await ctx.child(holds, TaskLimits(), "step")


def worker(store: EventStore) -> Worker:
    dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
    settings = WorkerSettings(slots=10, lease_s=LEASE_S, look_s=0.05)
    return Worker(store, dispatcher, (ScriptedLlmPool(), "scripted"), (steady, holds), settings)


async def main() -> None:
    with open_store(sys.argv[1]) as store:
        async with worker(store).working() as working:
            print(working.name, flush=True)  # noqa: T201
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
