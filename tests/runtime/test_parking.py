"""A task that only waits is parked in the store, and any worker goes on with it."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runtime.conftest import StartWorker

from steelyard.domain.events import SignalSent, StepRecorded, StepWaiting, TaskResumed
from steelyard.errors import SignalTimeoutError
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import WorkerSettings
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_log import SqliteEventLog, read_events

FREE = TaskLimits()
ONE_SLOT = WorkerSettings(slots=1, lease_s=1.0, look_s=0.02, park_s=0.1)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _state(store: EventStore, task_id: str) -> str:
    return store.tasks(task_id=task_id).result()[0].state


@task(name="sleeper")
async def sleeper(ctx: TaskContext, seconds_s: float) -> str:
    await ctx.sleep(seconds_s)
    return "awake"


@task(name="asker")
async def asker(ctx: TaskContext) -> Any:
    return await ctx.signal("go")


@task(name="quick")
async def quick(ctx: TaskContext) -> int:
    done: int = await ctx.step(lambda: 1)
    return done


async def test_tasks_that_wait_take_no_slot(path: Path, start_worker: StartWorker) -> None:
    with SqliteEventLog(path) as store:
        async with start_worker(store, sleeper, asker, quick, settings=ONE_SLOT) as worker:
            for number in range(40):
                await worker.submit(sleeper, f"s{number}", FREE, {"seconds_s": 3600.0})
                await worker.submit(asker, f"a{number}", FREE, {})
            await worker.submit(quick, "q", FREE, {})
            ended = await asyncio.wait_for(worker.result("q"), 30)
            await _until(lambda: len(store.tasks(state="waiting", limit=100).result()) == 80)
            assert {row.worker for row in store.tasks(state="waiting").result()} == {""}
    assert ended.status == "succeeded"


async def test_a_sleep_goes_on_in_another_worker_and_only_for_what_is_left(
    path: Path, start_worker: StartWorker
) -> None:
    with SqliteEventLog(path) as store:
        async with start_worker(store, sleeper, settings=ONE_SLOT) as worker:
            await worker.submit(sleeper, "t", FREE, {"seconds_s": 1.0})
            await _until(lambda: _state(store, "t") == "waiting")
        async with start_worker(store, sleeper, settings=ONE_SLOT) as worker:
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == "awake"
    events = list(read_events(path))
    (begun,) = [event for event in events if isinstance(event, StepWaiting)]
    assert begun.until_s is not None
    assert ended.t_s >= begun.until_s
    assert sum(isinstance(event, TaskResumed) for event in events) == 1


async def test_a_signal_reaches_a_task_that_no_worker_holds(
    path: Path, start_worker: StartWorker
) -> None:
    with SqliteEventLog(path) as store:
        async with start_worker(store, asker) as worker:
            await worker.submit(asker, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
        store.append(SignalSent(t_s=0.0, task_id="t", name="other", value=1))
        store.append(SignalSent(t_s=0.0, task_id="t", name="go", value=2))
        async with start_worker(store, asker) as worker:
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == 2


async def test_a_signal_that_nobody_waits_for_leaves_the_task_parked(
    path: Path, start_worker: StartWorker
) -> None:
    with SqliteEventLog(path) as store:
        async with start_worker(store, asker) as worker:
            await worker.submit(asker, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
            store.append(SignalSent(t_s=0.0, task_id="t", name="other"))
            store.durable().result()
            await _until(lambda: any(isinstance(one, TaskResumed) for one in read_events(path)))
            await _until(lambda: _state(store, "t") == "waiting")
            store.append(SignalSent(t_s=0.0, task_id="t", name="go", value=3))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == 3


async def test_a_task_stays_while_one_of_its_branches_works(
    path: Path, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    @task(name="both")
    async def both(ctx: TaskContext) -> list[Any]:
        async def works() -> int:
            await ctx.step(gate.wait)
            return 1

        return await ctx.gather(works(), ctx.signal("go"))

    with SqliteEventLog(path) as store:
        async with start_worker(store, both, quick) as worker:
            await worker.submit(both, "t", FREE, {})
            for number in range(5):
                await worker.submit(quick, f"q{number}", FREE, {})
                await asyncio.wait_for(worker.result(f"q{number}"), 10)
            assert _state(store, "t") == "running"
            gate.set()
            await _until(lambda: _state(store, "t") == "waiting")
            store.append(SignalSent(t_s=0.0, task_id="t", name="go", value=2))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == [1, 2]


async def test_a_parent_whose_child_is_parked_is_parked_and_woken_by_its_end(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="parent")
    async def parent(ctx: TaskContext) -> Any:
        return await ctx.child(asker, FREE)

    with SqliteEventLog(path) as store:
        async with start_worker(store, parent, asker, settings=ONE_SLOT) as worker:
            for name in ("t", "u"):
                await worker.submit(parent, name, FREE, {})
            await _until(lambda: len(store.tasks(state="waiting").result()) == 4)
            for name in ("t", "u"):
                store.append(SignalSent(t_s=0.0, task_id=f"{name}.0", name="go", value=name))
                ended = await asyncio.wait_for(worker.result(name), 10)
                assert ended.result == name


async def test_a_parked_task_keeps_its_deadline(path: Path, start_worker: StartWorker) -> None:
    async def partial(ctx: TaskContext) -> str:
        found: str = await ctx.step(lambda: "wrapped")
        return found

    @task(name="late", wrap_up=partial, wrap_up_s=5.0)
    async def late(ctx: TaskContext) -> None:
        await ctx.signal("never")

    with SqliteEventLog(path) as store:
        async with start_worker(store, late, settings=ONE_SLOT) as worker:
            await worker.submit(late, "t", TaskLimits(deadline_after_s=5.8), {})
            await _until(lambda: _state(store, "t") == "waiting")
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert (ended.result, ended.error_code) == ("wrapped", "deadline_exceeded")


async def test_cancelling_a_parked_task_ends_it_and_its_parent_hears(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="parent")
    async def parent(ctx: TaskContext) -> Any:
        return await ctx.child(asker, FREE)

    with SqliteEventLog(path) as store, SqliteEventLog(path) as other:
        async with start_worker(store, parent, asker) as worker:
            await worker.submit(parent, "t", FREE, {})
            await _until(lambda: len(store.tasks(state="waiting").result()) == 2)
            assert await asyncio.wrap_future(other.cancel("t.0", 1.0))
            assert _state(other, "t.0") == "cancelled"
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.status == "failed"
    assert "child task t.0 of agent asker cancelled" in ended.error


async def test_parking_performs_no_step_of_a_finally_block(
    path: Path, start_worker: StartWorker
) -> None:
    ran: list[str] = []

    @task(name="careful")
    async def careful(ctx: TaskContext) -> str:
        try:
            await ctx.signal("go")
        finally:
            await ctx.step(lambda: ran.append("clean"))
        return "done"

    with SqliteEventLog(path) as store:
        async with start_worker(store, careful) as worker:
            await worker.submit(careful, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
            assert ran == []
            store.append(SignalSent(t_s=0.0, task_id="t", name="go"))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert (ended.result, ran) == ("done", ["clean"])
    steps = [one.kind for one in read_events(path) if isinstance(one, StepRecorded)]
    assert steps == ["signal", "local"]


async def test_an_agent_that_swallows_its_cancellation_is_parked_all_the_same(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="stubborn")
    async def stubborn(ctx: TaskContext) -> Any:
        try:
            return await ctx.signal("go")
        except asyncio.CancelledError:
            return "swallowed"

    with SqliteEventLog(path) as store:
        async with start_worker(store, stubborn) as worker:
            await worker.submit(stubborn, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
            store.append(SignalSent(t_s=0.0, task_id="t", name="go", value=5))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == 5


async def test_a_parked_child_of_an_agent_that_only_its_parent_knows_goes_on(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="parent")
    async def parent(ctx: TaskContext) -> str:
        return await ctx.child(sleeper, FREE, 0.5)

    with SqliteEventLog(path) as store:
        async with start_worker(store, parent, settings=ONE_SLOT) as worker:
            await worker.submit(parent, "t", FREE, {})
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == "awake"
    resumed = {one.task_id for one in read_events(path) if isinstance(one, TaskResumed)}
    assert resumed == {"t", "t.0"}


async def test_a_signal_that_came_too_late_for_one_wait_is_there_for_the_next(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="asks_twice")
    async def asks_twice(ctx: TaskContext) -> Any:
        with contextlib.suppress(SignalTimeoutError):
            await ctx.signal("go", timeout_s=0.01)
        return await ctx.signal("go")

    with SqliteEventLog(path) as store:
        async with start_worker(store, asks_twice, settings=ONE_SLOT) as worker:
            await worker.submit(asks_twice, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
            store.append(SignalSent(t_s=0.0, task_id="t", name="go", value=5))
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == 5


async def test_the_patience_for_a_signal_goes_on_over_a_restart(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="patient")
    async def patient(ctx: TaskContext) -> str:
        try:
            await ctx.signal("go", timeout_s=0.8)
        except SignalTimeoutError as error:
            return str(error)
        return "came"

    with SqliteEventLog(path) as store:
        async with start_worker(store, patient, settings=ONE_SLOT) as worker:
            await worker.submit(patient, "t", FREE, {})
            await _until(lambda: _state(store, "t") == "waiting")
        async with start_worker(store, patient, settings=ONE_SLOT) as worker:
            ended = await asyncio.wait_for(worker.result("t"), 10)
    assert ended.result == "task t got no signal go in 0.8 s"
    assert sum(isinstance(one, StepWaiting) for one in read_events(path)) == 1
