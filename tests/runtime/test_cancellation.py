"""A cancellation reaches whatever a task is doing, in whatever process."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.runtime.conftest import StartWorker
from tests.store.conftest import Open

from steelyard.domain.events import (
    CancelRequested,
    StepRecorded,
    StepWaiting,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.store.event_store import EventStore, read_store
from steelyard.store.sqlite_log import SqliteEventLog, read_events
from steelyard.store.tasks import Submission

PEER = Path(__file__).with_name("peer.py")
FREE = TaskLimits()


def _wait_until(condition: Callable[[], bool]) -> None:
    gives_up_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < gives_up_s
        time.sleep(0.02)


def _states(store: EventStore) -> dict[str, str]:
    return {row.task_id: row.state for row in store.tasks().result()}


def test_it_reaches_every_kind_of_step_of_another_process(where: str, open_one: Open) -> None:
    kinds = ("step", "sleep", "signal", "gather", "child")
    peer = subprocess.Popen([sys.executable, PEER, where], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert peer.stdout is not None
        peer.stdout.readline()
        with open_one() as store:
            for kind in kinds:
                event = TaskSubmitted(
                    t_s=time.time(), task_id=kind, agent="holds", arguments={"what": kind}
                )
                store.submit(Submission(event=event)).result()
            expected = dict.fromkeys([*kinds, "child.0"], "running") | {"signal": "waiting"}
            _wait_until(lambda: _states(store) == expected)
            _wait_until(lambda: any(isinstance(one, StepWaiting) for one in read_store(store)))
            for kind in kinds:
                assert store.cancel(kind, time.time()).result()
            _wait_until(lambda: set(_states(store).values()) == {"cancelled"})
            events = list(read_store(store))
    finally:
        peer.kill()
        peer.communicate()
    for task_id in expected:
        mine = [one for one in events if getattr(one, "task_id", "") == task_id]
        asked = next(n for n, one in enumerate(mine) if isinstance(one, CancelRequested))
        after = [type(one) for one in mine[asked + 1 :]]
        # Nothing is begun any more; a sleep may just have been over.
        assert after.count(TaskFinished) == 1
        assert after[-1] is TaskFinished
        assert set(after) <= {TaskFinished, StepRecorded, StepWaiting}
        assert len(after) <= 3


@pytest.mark.parametrize("how", ["swallow", "cleanup"])
async def test_an_agent_cannot_go_on_after_it(
    path: Path, start_worker: StartWorker, how: str
) -> None:
    began = asyncio.Event()

    async def hold() -> None:
        began.set()
        await asyncio.Event().wait()

    @task(name="stubborn")
    async def stubborn(ctx: TaskContext) -> str:
        try:
            await ctx.step(hold)
        except asyncio.CancelledError:
            if how == "cleanup":
                await ctx.step(lambda: "cleaned")
        return "done"

    with SqliteEventLog(path) as store:
        async with start_worker(store, stubborn) as worker:
            await worker.submit(stubborn, "t", FREE, {})
            await asyncio.wait_for(began.wait(), 10)
            assert await asyncio.wrap_future(store.cancel("t", 0.0))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert (ended.status, ended.result) == ("cancelled", None)
    assert not any(isinstance(one, StepRecorded) for one in read_events(path))
