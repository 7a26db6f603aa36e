"""A durable step for which a spend cap has no room waits, and goes on when there is some."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.runtime.conftest import tool_spec

from steelyard.domain.events import AttemptFinished, PoolAdded, StepRefused, StepWaiting
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.errors import SpendCapError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime import cap_waits
from steelyard.runtime.cap_waits import told_wait
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task, tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_log import SqliteEventLog

FREE = TaskLimits()
USD = 0.0005
SETTINGS = WorkerSettings(lease_s=1.0, look_s=0.02, park_s=0.1)


class Hours:
    """A clock on which the hour turns when the test says so; 100 s into an hour at first."""

    def __init__(self) -> None:
        self._ahead_s = 100.0 - time.time() % 3600.0

    def now_s(self) -> float:
        return time.time() + self._ahead_s

    def turn(self) -> None:
        self._ahead_s += 3600.0


class Tools:
    """Each call takes CPU of 0.0005 USD, unless the test says less."""

    slots = 8

    def __init__(self) -> None:
        self.runs = 0
        self.cpu_s = 0.5
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, request: ToolRequest) -> ToolOutcome:
        self.runs += 1
        await self.may_end.wait()
        return ToolOutcome(
            result=self.runs, cpu_s=self.cpu_s, wall_s=self.cpu_s, max_memory_bytes=0
        )


@tool()
def pay() -> int:
    return 1


@task(name="payer")
async def payer(ctx: TaskContext, times: int) -> int:
    return sum([await ctx.tool(pay) for _ in range(times)])


@task(name="both")
async def both(ctx: TaskContext) -> None:
    await ctx.tool(pay)
    await ctx.gather(ctx.tool(pay), ctx.tool(pay))


def _spec(usd_per_hour: float) -> PoolSpec:
    cap = SpendCap(usd_per_hour=usd_per_hour)
    return msgspec.structs.replace(tool_spec(slots=8), spend_cap=cap)


@asynccontextmanager
async def _worker(
    store: EventStore, clock: Hours, tools: Tools, usd_per_hour: float, spent_usd: float = 0.0
) -> AsyncGenerator[Worker, None]:
    """A worker that may spend so much; as `steelyard run` does, it wakes tasks that wait."""
    recorder = Recorder(clock, store)
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=_spec(usd_per_hour)))
    # What the first exchange with the store tells a process that has just begun.
    recorder.state.spend.hear("local", (spent_usd, spent_usd))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, {"tools": tools})
    dispatcher.subscribe(lambda event: _let_end(event, tools))
    agents = (payer, both)
    worker = Worker(store, dispatcher, (ScriptedLlmPool(), "none"), agents, SETTINGS)
    store.spend.wake().result()
    async with worker.working():
        yield worker


def _let_end(event: object, tools: Tools) -> None:
    if isinstance(event, StepWaiting):
        tools.may_end.set()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _state(store: EventStore, task_id: str = "t") -> str:
    return store.tasks(task_id=task_id).result()[0].state


def _count(store: EventStore, kind: type[object]) -> int:
    return sum(isinstance(event, kind) for event in store.journal("t").result())


async def test_a_step_waits_for_the_next_hour_in_the_store_and_is_done_once(path: Path) -> None:
    clock, tools = Hours(), Tools()
    with SqliteEventLog(path) as store:
        async with _worker(store, clock, tools, 2.1 * USD) as worker:
            await worker.submit(payer, "t", FREE, {"times": 4})
            await _until(lambda: _state(store) == "waiting")
            assert tools.runs == 2
            (waits,) = [e for e in store.journal("t").result() if isinstance(e, StepWaiting)]
            assert waits.until_s is not None
            assert waits.until_s % 3600.0 == pytest.approx(0.0, abs=1e-3)
            assert waits.caps == {"local": pytest.approx(USD)}
            told = [told_wait(one) for one in Journal.of(store.journal("t").result()).in_order()]
            assert "waits for room under the spend cap of local, since " in told[2]
            assert told[2].endswith(":00:00 UTC")
            clock.turn()
            # The database's clock has no hour to turn: this is what it does then.
            store.spend.wake().result()
            ended = await asyncio.wait_for(worker.result("t"), 30)
        assert (ended.status, tools.runs) == ("succeeded", 4)
        assert (_count(store, StepRefused), _count(store, AttemptFinished)) == (1, 4)
        assert all(not told_wait(one) for one in Journal.of(store.journal("t").result()).in_order())


async def test_a_worker_that_goes_on_asks_before_the_hour_only_under_a_larger_cap(
    path: Path,
) -> None:
    clock, tools = Hours(), Tools()
    with SqliteEventLog(path) as store:
        async with _worker(store, clock, tools, 1.1 * USD) as worker:
            await worker.submit(payer, "t", FREE, {"times": 2})
            await _until(lambda: _state(store) == "waiting")
        for _ in range(2):
            async with _worker(store, clock, tools, 1.1 * USD, spent_usd=USD):
                await _until(lambda: _state(store) == "running")
                await _until(lambda: _state(store) == "waiting")
        assert (_count(store, StepRefused), _count(store, StepWaiting), tools.runs) == (1, 1, 1)
        async with _worker(store, clock, tools, 9.9 * USD, spent_usd=USD) as worker:
            ended = await asyncio.wait_for(worker.result("t"), 30)
        assert (ended.status, tools.runs) == ("succeeded", 2)


async def test_a_deadline_before_the_next_hour_fails_at_once_and_says_so(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _worker(store, Hours(), Tools(), 1.1 * USD) as worker:
            await worker.submit(payer, "t", TaskLimits(deadline_after_s=600.0), {"times": 2})
            ended = await asyncio.wait_for(worker.result("t"), 30)
    assert (ended.status, ended.error_code) == ("failed", SpendCapError.code)
    assert "; the task's deadline is " in ended.error


async def test_a_deadline_after_the_next_hour_leaves_time_to_wait(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _worker(store, Hours(), Tools(), 1.1 * USD) as worker:
            await worker.submit(payer, "t", TaskLimits(deadline_after_s=3600.0), {"times": 2})
            await _until(lambda: _state(store) == "waiting")


async def test_a_step_that_no_hour_has_room_for_fails_at_once(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _worker(store, Hours(), Tools(), 0.9 * USD) as worker:
            await worker.submit(payer, "t", FREE, {"times": 2})
            ended = await asyncio.wait_for(worker.result("t"), 30)
    assert ended.error_code == SpendCapError.code
    assert ended.error.endswith("more than a whole hour or day may, so that no wait helps")


async def test_without_a_deadline_a_step_waits_only_so_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cap_waits, "LONGEST_WAIT_S", 600.0)
    with SqliteEventLog(path) as store:
        async with _worker(store, Hours(), Tools(), 1.1 * USD) as worker:
            await worker.submit(payer, "t", FREE, {"times": 2})
            ended = await asyncio.wait_for(worker.result("t"), 30)
    assert ended.error_code == SpendCapError.code
    assert "it has waited since " in ended.error


async def test_what_others_under_way_may_cost_is_waited_for_only_until_they_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cap_waits, "_FIRST_PAUSE_S", 0.05)
    tools = Tools()
    with SqliteEventLog(path) as store:
        async with _worker(store, Hours(), tools, 2.2 * USD) as worker:
            await worker.submit(payer, "first", FREE, {"times": 1})
            await asyncio.wait_for(worker.result("first"), 30)
            tools.may_end.clear()
            tools.cpu_s = 0.05
            await worker.submit(payer, "held", FREE, {"times": 1})
            await _until(lambda: tools.runs == 2)
            await worker.submit(payer, "t", FREE, {"times": 1})
            ended = await asyncio.wait_for(worker.result("t"), 30)
        assert ended.status == "succeeded"
        assert _count(store, StepRefused) >= 1
        waits = [one for one in store.journal("t").result() if isinstance(one, StepWaiting)]
        assert all((one.until_s or 0.0) - one.t_s <= 60.0 for one in waits)
