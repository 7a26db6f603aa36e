"""A retried task goes on from where it failed, and pays for nothing twice."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import StartWorker

from steelyard.domain.events import Event, StepRecorded, TaskFinished, TaskSubmitted
from steelyard.errors import ConfigError, SteelyardError
from steelyard.ledger.ledger import Ledger
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import AgentTask, task
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.retrying import retried, submitted_anew
from steelyard.runtime.worker import Worker
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_log import SqliteEventLog, read_events

FREE = TaskLimits()


class World:
    """Counts what is done, and breaks what is to break."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.broken: set[str] = set()

    def act(self, what: str) -> str:
        self.done[what] += 1
        if what in self.broken:
            raise ValueError(what)
        return what


async def _retry(store: EventStore, task_id: str, limits: TaskLimits = FREE) -> None:
    events = await asyncio.wrap_future(store.journal(task_id))
    journal = Journal.of(events)
    assert await asyncio.wrap_future(store.retry(retried(task_id, journal, limits, 1.0)))


async def _result(worker: Worker, task_id: str = "t") -> TaskFinished:
    return await asyncio.wait_for(worker.result(task_id), 10)


async def _run(worker: Worker, agent: AgentTask[Any, ..., Any], **limits: Any) -> TaskFinished:
    await worker.submit(agent, "t", TaskLimits(**limits), {})
    return await _result(worker)


async def test_steps_with_a_result_keep_it_and_the_failed_one_runs_again(
    path: Path, start_worker: StartWorker
) -> None:
    world = World()
    world.broken.add("b")

    @task(name="three")
    async def three(ctx: TaskContext) -> list[str]:
        return [await ctx.step(world.act, name) for name in ("a", "b", "c")]

    with SqliteEventLog(path) as store:
        async with start_worker(store, three) as worker:
            assert (await _run(worker, three)).status == "failed"
            world.broken.clear()
            await _retry(store, "t")
            ended = await _result(worker)
    assert ended.result == ["a", "b", "c"]
    assert world.done == {"a": 1, "b": 2, "c": 1}
    ledger = Ledger.of(read_events(path))
    assert [one.status for one in ledger.tasks] == ["succeeded"]


async def test_a_failure_that_was_handled_stays_handled(
    path: Path, start_worker: StartWorker
) -> None:
    world = World()
    world.broken.update({"first", "last"})

    @task(name="falls_back")
    async def falls_back(ctx: TaskContext) -> list[str]:
        try:
            found = await ctx.step(world.act, "first")
        except SteelyardError:
            found = await ctx.step(world.act, "second")
        return [found, await ctx.step(world.act, "last")]

    with SqliteEventLog(path) as store:
        async with start_worker(store, falls_back) as worker:
            assert (await _run(worker, falls_back)).status == "failed"
            world.broken.clear()
            await _retry(store, "t")
            ended = await _result(worker)
    assert ended.result == ["second", "last"]
    assert world.done == {"first": 1, "second": 1, "last": 2}


async def test_a_failed_gather_is_gone_on_with_branch_by_branch(
    path: Path, start_worker: StartWorker
) -> None:
    world = World()
    world.broken.add("1.b")
    both = asyncio.Event()

    @task(name="branches")
    async def branches(ctx: TaskContext) -> list[str]:
        async def branch(number: int) -> str:
            first: str = await ctx.step(world.act, f"{number}.a")
            if number == 0:
                both.set()
            await both.wait()
            second: str = await ctx.step(world.act, f"{number}.b")
            return first + second

        return await ctx.gather(*(branch(number) for number in range(2)))

    with SqliteEventLog(path) as store:
        async with start_worker(store, branches) as worker:
            assert (await _run(worker, branches)).status == "failed"
            world.broken.clear()
            await _retry(store, "t")
            ended = await _result(worker)
    assert ended.result == ["0.a0.b", "1.a1.b"]
    assert (world.done["0.a"], world.done["1.a"], world.done["1.b"]) == (1, 1, 2)


async def test_a_task_that_missed_its_deadline_gets_a_new_one(
    path: Path, start_worker: StartWorker
) -> None:
    world, gate = World(), asyncio.Event()

    @task(name="late")
    async def late(ctx: TaskContext) -> list[Any]:
        first = await ctx.step(world.act, "a")
        return [first, await ctx.step(gate.wait)]

    with SqliteEventLog(path) as store:
        async with start_worker(store, late) as worker:
            ended = await _run(worker, late, deadline_after_s=0.3)
            assert ended.error_code == "deadline_exceeded"
            gate.set()
            await _retry(store, "t", TaskLimits(deadline_after_s=1e10))
            ended = await _result(worker)
    assert ended.result == ["a", True]
    assert world.done == {"a": 1}


async def test_children_that_failed_or_were_cancelled_go_on_with_their_parent(
    path: Path, start_worker: StartWorker
) -> None:
    world, reached = World(), asyncio.Event()
    gate = asyncio.Event()

    @task(name="inner")
    async def inner(ctx: TaskContext, name: str) -> str:
        await ctx.step(world.act, f"{name}.a")
        if name == "waits":
            reached.set()
            await ctx.step(gate.wait)
        else:
            await ctx.step(reached.wait)
        last: str = await ctx.step(world.act, f"{name}.b")
        return last

    @task(name="outer")
    async def outer(ctx: TaskContext) -> list[str]:
        return await ctx.gather(ctx.child(inner, FREE, "breaks"), ctx.child(inner, FREE, "waits"))

    world.broken.add("breaks.b")
    with SqliteEventLog(path) as store:
        async with start_worker(store, outer, inner) as worker:
            assert (await _run(worker, outer)).status == "failed"
            for child in ("t.0.0.0", "t.0.1.0"):
                assert (await _result(worker, child)).status in {"failed", "cancelled"}
            world.broken.clear()
            gate.set()
            await _retry(store, "t")
            ended = await _result(worker)
    assert ended.result == ["breaks.b", "waits.b"]
    assert world.done == {"breaks.a": 1, "breaks.b": 2, "waits.a": 1, "waits.b": 1}


async def test_a_wrapped_up_task_goes_on_with_its_main_function(
    path: Path, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    async def partial(ctx: TaskContext) -> str:
        found: str = await ctx.step(lambda: "partial")
        return found

    @task(name="slow", wrap_up=partial, wrap_up_s=5.0)
    async def slow(ctx: TaskContext) -> str:
        await ctx.step(gate.wait)
        return "whole"

    with SqliteEventLog(path) as store:
        async with start_worker(store, slow) as worker:
            assert (await _run(worker, slow, deadline_after_s=5.2)).result == "partial"
            gate.set()
            await _retry(store, "t", TaskLimits(deadline_after_s=1e10))
            ended = await _result(worker)
    assert (ended.result, ended.wrapped_up) == ("whole", False)


def test_what_has_succeeded_or_has_not_ended_is_not_retried() -> None:
    submitted = TaskSubmitted(t_s=0.0, task_id="t", agent="a", deadline_s=10.0, budget_usd=2.0)
    with pytest.raises(ConfigError, match="task t has not ended"):
        retried("t", Journal.of([submitted]), FREE, 100.0)
    ended = TaskFinished(t_s=1.0, task_id="t", status="succeeded")
    with pytest.raises(ConfigError, match="task t has succeeded"):
        retried("t", Journal.of([submitted, ended]), FREE, 100.0)
    failed = TaskFinished(t_s=1.0, task_id="t", status="failed")
    event = retried("t", Journal.of([submitted, failed]), FREE, 100.0)
    assert (event.deadline_s, event.budget_usd) == (110.0, 2.0)


def test_every_retry_gets_as_much_time_and_money_as_there_was_at_first() -> None:
    submitted = TaskSubmitted(t_s=0.0, task_id="t", agent="a", deadline_s=10.0, budget_usd=2.0)
    failed = TaskFinished(t_s=1.0, task_id="t", status="failed")
    events: list[Event] = [submitted, failed]
    wanted = (FREE, TaskLimits(deadline_after_s=50.0, budget_usd=9.0), FREE)
    told = [retried("t", Journal.of(events), wanted[0], 100.0)]
    for limits, now_s in zip(wanted[1:], (200.0, 300.0), strict=True):
        events += [told[-1], failed]
        told.append(retried("t", Journal.of(events), limits, now_s))
    expected = [(110.0, 2.0), (250.0, 9.0), (310.0, 2.0)]
    assert [(one.deadline_s, one.budget_usd) for one in told] == expected
    anew = submitted_anew("t2", Journal.of(events), FREE, 400.0)
    assert (anew.deadline_s, anew.budget_usd) == (410.0, 2.0)


async def test_a_second_retry_goes_on_from_the_second_failure(
    path: Path, start_worker: StartWorker
) -> None:
    world = World()
    world.broken.update({"b", "c"})

    @task(name="three")
    async def three(ctx: TaskContext) -> list[str]:
        return [await ctx.step(world.act, name) for name in ("a", "b", "c")]

    with SqliteEventLog(path) as store:
        async with start_worker(store, three) as worker:
            ended = await _run(worker, three)
            for mended in ("b", "c"):
                world.broken.remove(mended)
                await _retry(store, "t")
                ended = await _result(worker)
    assert ended.result == ["a", "b", "c"]
    assert world.done == {"a": 1, "b": 2, "c": 2}
    steps = [one.path for one in read_events(path) if isinstance(one, StepRecorded)]
    assert steps == ["0", "1", "1", "2", "2"]


def test_what_a_gateway_submits_of_a_worker_s_task_hides_none_of_its_arguments() -> None:
    first = TaskSubmitted(
        t_s=1.0, task_id="t", agent="a", deadline_s=9.0, budget_usd=0.5, arguments={"n": 3}
    )
    heard = TaskSubmitted(t_s=2.0, task_id="t", agent="a")
    again = submitted_anew("u", Journal.of([first, heard]), FREE, 20.0)
    assert (again.arguments, again.budget_usd, again.deadline_s) == ({"n": 3}, 0.5, 28.0)
    ended = TaskFinished(t_s=3.0, task_id="t", status="failed")
    assert Journal.of([first, ended, heard]).submitted == heard
