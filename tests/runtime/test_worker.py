import asyncio
from pathlib import Path
from typing import Any

from tests.runtime.conftest import StartWorker

from steelyard.domain.agent import AgentLimit
from steelyard.domain.events import SignalSent, StepRecorded, TaskSubmitted
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import TaskOrder, WorkerSettings
from steelyard.store.sqlite_log import SqliteEventLog, read_events
from steelyard.store.tasks import Submission

FREE = TaskLimits()


def add(one: int, other: int) -> int:
    return one + other


async def test_a_task_runs_to_its_end_and_its_steps_are_in_the_log(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="adder")
    async def adder(ctx: TaskContext, first: int) -> int:
        total = first
        for number in range(3):
            total = await ctx.step(add, total, number)
        return total

    with SqliteEventLog(path) as store:
        async with start_worker(store, adder) as worker:
            await worker.submit(adder, "t1", FREE, {"first": 10})
            ended = await asyncio.wait_for(worker.result("t1"), 10)
        assert (ended.status, ended.result, ended.error) == ("succeeded", 13, "")
    steps = [event for event in read_events(path) if isinstance(event, StepRecorded)]
    assert [(step.path, step.step_id, step.result) for step in steps] == [
        ("0", 0, 10),
        ("1", 1, 11),
        ("2", 2, 13),
    ]


async def test_a_task_left_by_one_worker_goes_on_in_the_next_without_repeating_a_step(
    path: Path, start_worker: StartWorker
) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @task(name="halting")
    async def halting(ctx: TaskContext) -> list[str]:
        first = await ctx.step(note, "first")
        second = await ctx.gather(ctx.step(note, "left"), ctx.step(note, "right"))

        async def wait() -> str:
            ran.append("wait")
            await gate.wait()
            return "d"

        return [first, *second, await ctx.step(wait)]

    def note(what: str) -> str:
        ran.append(what)
        return what

    with SqliteEventLog(path) as store:
        async with start_worker(store, halting) as worker:
            await worker.submit(halting, "t1", FREE, {})
            async with asyncio.timeout(10):
                while "wait" not in ran:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        gate.set()
        async with start_worker(store, halting) as worker:
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert ended.result == ["first", "left", "right", "d"]
    assert sorted(ran) == ["first", "left", "right", "wait", "wait"]


async def test_a_replay_that_asks_for_another_step_is_refused_with_both_named(
    path: Path, start_worker: StartWorker
) -> None:
    flips = iter(["heads", "tails"])
    gate = asyncio.Event()
    reached = asyncio.Event()

    @task(name="fickle")
    async def fickle(ctx: TaskContext) -> None:
        side = next(flips)  # chance outside of a step: just what must not be
        if side == "heads":
            await ctx.step(heads)
        else:
            await ctx.step(tails)
        reached.set()
        await ctx.step(gate.wait)

    def heads() -> int:
        return 1

    def tails() -> int:
        return 2

    with SqliteEventLog(path) as store:
        async with start_worker(store, fickle) as worker:
            await worker.submit(fickle, "t1", FREE, {})
            await asyncio.wait_for(reached.wait(), 10)
        async with start_worker(store, fickle) as worker:
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert (ended.status, ended.error_code) == ("failed", "nondeterminism")
    assert "'tails'" in ended.error
    assert "'heads'" in ended.error


async def test_a_failure_that_the_task_handles_is_the_same_on_a_replay(
    path: Path, start_worker: StartWorker
) -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    def breaks() -> None:
        ran.append("breaks")
        raise ValueError("no")

    @task(name="careful")
    async def careful(ctx: TaskContext) -> str:
        told = ""
        try:
            await ctx.gather(ctx.step(breaks), ctx.step(lambda: 1))
        except Exception as error:  # noqa: BLE001
            told = f"{type(error).__name__}: {error}"
        ran.append("after")
        await ctx.step(gate.wait)
        return told

    with SqliteEventLog(path) as store:
        async with start_worker(store, careful) as worker:
            await worker.submit(careful, "t1", FREE, {})
            async with asyncio.timeout(10):
                while "after" not in ran:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        gate.set()
        async with start_worker(store, careful) as worker:
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert ended.result == "StepFailedError: local step breaks raised ValueError: no"
    assert ran.count("breaks") == 1


async def test_a_deadline_stops_a_step_and_wrap_up_makes_do(
    path: Path, start_worker: StartWorker
) -> None:
    async def partial(ctx: TaskContext) -> list[Any]:
        done = [step.result for step in ctx.finished_steps()]
        return [*done, await ctx.step(lambda: "wrapped")]

    @task(name="slow", wrap_up=partial, wrap_up_s=5.0)
    async def slow(ctx: TaskContext) -> list[str]:
        first = await ctx.step(lambda: "first")
        await ctx.sleep(600.0)
        return [first]

    with SqliteEventLog(path) as store:
        async with start_worker(store, slow) as worker:
            await worker.submit(slow, "t1", TaskLimits(deadline_after_s=5.5), {})
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert (ended.status, ended.wrapped_up) == ("succeeded", True)
    assert ended.result == ["first", "wrapped"]
    assert ended.error_code == "deadline_exceeded"


async def test_a_deadline_without_wrap_up_fails_the_task(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="slow")
    async def slow(ctx: TaskContext) -> None:
        await ctx.sleep(600.0)

    with SqliteEventLog(path) as store:
        async with start_worker(store, slow) as worker:
            await worker.submit(slow, "t1", TaskLimits(deadline_after_s=0.2), {})
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert (ended.status, ended.error_code) == ("failed", "deadline_exceeded")


async def test_a_signal_from_another_store_object_reaches_a_waiting_step(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="asks")
    async def asks(ctx: TaskContext) -> list[Any]:
        return [await ctx.signal("go"), await ctx.signal("go")]

    with SqliteEventLog(path) as store, SqliteEventLog(path) as other:
        async with start_worker(store, asks) as worker:
            await worker.submit(asks, "t1", FREE, {})
            other.append(SignalSent(t_s=0.0, task_id="t1", name="go", value=1))
            other.append(SignalSent(t_s=0.0, task_id="t1", name="go", value={"two": 2}))
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert ended.result == [1, {"two": 2}]


async def test_cancelling_from_another_store_object_stops_the_running_step(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="waits")
    async def waits(ctx: TaskContext) -> None:
        await ctx.signal("never")

    with SqliteEventLog(path) as store, SqliteEventLog(path) as other:
        async with start_worker(store, waits) as worker:
            await worker.submit(waits, "t1", FREE, {})
            assert other.cancel("t1", 1.0).result()
            ended = await asyncio.wait_for(worker.result("t1"), 10)
            assert not other.cancel("t1", 1.0).result()
    assert ended.status == "cancelled"


async def test_a_child_inherits_the_deadline_and_its_result_is_a_step(
    path: Path, start_worker: StartWorker
) -> None:
    seen: dict[str, float | None] = {}

    @task(name="inner")
    async def inner(ctx: TaskContext, number: int) -> int:
        seen["inner"] = ctx.deadline_s
        doubled: int = await ctx.step(add, number, number)
        return doubled

    @task(name="outer")
    async def outer(ctx: TaskContext) -> int:
        seen["outer"] = ctx.deadline_s
        return await ctx.child(inner, TaskLimits(deadline_after_s=900.0), 21)

    with SqliteEventLog(path) as store:
        async with start_worker(store, outer) as worker:
            await worker.submit(outer, "t1", TaskLimits(deadline_after_s=60.0), {})
            ended = await asyncio.wait_for(worker.result("t1"), 10)
    assert ended.result == 42
    assert seen["inner"] == seen["outer"]


async def test_no_more_tasks_of_an_agent_run_at_once_than_allowed(
    path: Path, start_worker: StartWorker
) -> None:
    running = 0
    most = 0

    @task(name="narrow", limit=AgentLimit(max_running=2))
    async def narrow(ctx: TaskContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ctx.step(lambda: 1)
        await ctx.step(lambda: 2)
        running -= 1

    with SqliteEventLog(path) as store:
        async with start_worker(store, narrow) as one, start_worker(store, narrow):
            for number in range(8):
                await one.submit(narrow, f"t{number}", FREE, {})
            for number in range(8):
                ended = await asyncio.wait_for(one.result(f"t{number}"), 20)
                assert ended.status == "succeeded"
    assert most == 2


async def test_a_second_submission_with_a_key_is_the_first_task(
    path: Path, start_worker: StartWorker
) -> None:
    @task(name="once")
    async def once(ctx: TaskContext) -> str:
        return ctx.task_id

    order = TaskOrder(key="order-7", priority=3)
    with SqliteEventLog(path) as store:
        async with start_worker(store, once) as worker:
            first = await worker.submit(once, "a", FREE, {}, order=order)
            second = await worker.submit(once, "b", FREE, {}, order=order)
            ended = await asyncio.wait_for(worker.result(second), 10)
        assert [row.priority for row in store.tasks().result()] == [3]
    assert (first, second, ended.result) == ("a", "a", "a")


async def test_a_worker_holds_no_more_tasks_than_it_has_slots(
    path: Path, start_worker: StartWorker
) -> None:
    running = 0
    most = 0

    @task(name="wide")
    async def wide(ctx: TaskContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ctx.step(lambda: asyncio.sleep(0.01))
        running -= 1

    with SqliteEventLog(path) as store:
        settings = WorkerSettings(slots=3, lease_s=1.0, look_s=0.02)
        async with start_worker(store, wide, settings=settings) as worker:
            await asyncio.gather(*(worker.submit(wide, f"t{n}", FREE, {}) for n in range(12)))
            for number in range(12):
                ended = await asyncio.wait_for(worker.result(f"t{number}"), 20)
                assert ended.status == "succeeded"
    assert most == 3


async def test_a_lease_whose_answer_got_lost_is_given_back(
    path: Path, start_worker: StartWorker
) -> None:
    """As when the caller of `submit` gave up, or the connection broke, just after the commit."""

    @task(name="quick")
    async def quick(ctx: TaskContext) -> int:
        total: int = await ctx.step(add, 1, 2)
        return total

    with SqliteEventLog(path) as store:
        async with start_worker(store, quick) as worker:
            event = TaskSubmitted(t_s=0.0, task_id="stray", agent="quick")
            stray = Submission(event=event, worker=worker.name, lease_s=60.0)
            await asyncio.wrap_future(store.submit(stray))
            ended = await asyncio.wait_for(worker.result("stray"), 20)
    assert ended.result == 3


def test_a_key_finds_the_first_task(path: Path) -> None:
    with SqliteEventLog(path) as store:
        for name in ("a", "b"):
            event = TaskSubmitted(t_s=0.0, task_id=name, agent="x")
            store.submit(Submission(event=event, key="order-7")).result()
        assert store.task_with_key("order-7").result() == "a"
        assert [row.task_id for row in store.tasks().result()] == ["a"]
