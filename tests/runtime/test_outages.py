"""The store goes away, its disk is full, its clock jumps: nothing is lost or paid for twice."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.runtime.conftest import paid_worker
from tests.runtime.crash_driver import bodies
from tests.store.postgres_server import PostgresServer

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished, TaskResumed
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import AgentTask, task, tool
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import WorkerSettings
from steelyard.store.event_store import EventStore, iter_events, read_store
from steelyard.store.open_store import open_store
from steelyard.store.sqlite_log import SqliteEventLog

FREE = TaskLimits()
DRIVER = Path(__file__).with_name("crash_driver.py")
STEPS, TASKS = 6, 8
# As long as the issue asks for; longer than SQLite waits for a lock by itself (5 s).
AWAY_S = 10.0
SHORT = WorkerSettings(lease_s=1.0, look_s=0.05)


@tool()
def pay() -> int:
    """Costs something."""
    return 1


@task(name="spender")
async def spender(ctx: TaskContext) -> int:
    total = 0
    for _ in range(STEPS):
        total += await ctx.tool(pay)
        total += await ctx.step(lambda: 1)
    return total


def _check(store: EventStore) -> None:
    """Every task ended once and well, and every step was paid for once."""
    events = list(read_store(store))
    ends = [event for event in events if isinstance(event, TaskFinished)]
    assert Counter(end.task_id for end in ends) == {f"t{number}": 1 for number in range(TASKS)}
    assert {(end.status, end.result) for end in ends} == {("succeeded", 2 * STEPS)}
    paths = {
        (event.step.task_id, event.step.step_id, event.step.attempt): event.step.path
        for event in events
        if isinstance(event, StepPlaced)
    }
    attempts = [event for event in events if isinstance(event, AttemptFinished)]
    keys = [(one.task_id, one.step_id, one.attempt) for one in attempts]
    assert len(set(keys)) == len(keys)
    paid = Counter(
        (one.task_id, paths[key])
        for one, key in zip(attempts, keys, strict=True)
        if one.outcome == "ok"
    )
    assert len(paid) == STEPS * TASKS
    assert set(paid.values()) == {1}
    assert {one.cost_usd for one in attempts if one.error_code == "worker_lost"} <= {0.0}


async def _run_through(store: EventStore, disturb: Callable[[], None]) -> None:
    """Run tasks while something happens to the store in the middle of them."""
    async with paid_worker(store, spender, settings=SHORT) as worker:
        for number in range(TASKS // 2):
            await worker.submit(spender, f"t{number}", FREE, {})
        disturbed = asyncio.create_task(asyncio.to_thread(disturb))
        async with asyncio.timeout(60):
            for number in range(TASKS // 2, TASKS):
                await worker.submit(spender, f"t{number}", FREE, {})
            for number in range(TASKS):
                await worker.result(f"t{number}")
            await disturbed


async def test_postgresql_is_away_for_10_s_and_comes_back(postgres: PostgresServer) -> None:
    def restart() -> None:
        postgres.stop()
        time.sleep(AWAY_S)
        postgres.start()

    with open_store(postgres.new_database()) as store:
        await _run_through(store, restart)
        _check(store)


async def test_another_program_holds_the_sqlite_file_for_longer_than_it_is_waited_for(
    path: Path,
) -> None:
    held, wanted = threading.Event(), 6.0

    def hold() -> None:
        other = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        other.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(wanted)
        other.execute("ROLLBACK")
        other.close()

    with SqliteEventLog(path) as store:
        await _run_through(store, hold)
        _check(store)
    assert held.is_set()


def _lingerer(over: asyncio.Event) -> AgentTask[TaskContext, [], int]:
    """The same, but no task is done before `over`: there is time to take it from its worker."""

    @task(name="spender")
    async def lingerer(ctx: TaskContext) -> int:
        total = 0
        for number in range(STEPS):
            total += await ctx.tool(pay)
            total += await ctx.step(lambda: 1)
            if number == STEPS // 2:
                await over.wait()
        return total

    return lingerer


async def test_a_clock_that_jumps_makes_work_twice_and_never_two_histories(path: Path) -> None:
    jump_s = 0.0
    over = asyncio.Event()
    lingerer = _lingerer(over)

    async def jump() -> None:
        nonlocal jump_s
        for number in range(1000):
            jump_s += 3600.0 if number % 3 else -5000.0
            await asyncio.sleep(0.02)
            if over.is_set():
                return

    def clock_s() -> float:
        return time.time() + jump_s

    with SqliteEventLog(path, clock_s) as one, SqliteEventLog(path, clock_s) as two:
        async with (
            paid_worker(one, lingerer, settings=SHORT) as first,
            paid_worker(two, lingerer, settings=SHORT),
        ):
            jumping = asyncio.create_task(jump())
            for number in range(TASKS):
                await first.submit(lingerer, f"t{number}", FREE, {})
            async with asyncio.timeout(60):
                while not any(isinstance(event, TaskResumed) for event in read_store(one)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                over.set()
                await jumping
                for number in range(TASKS):
                    await first.result(f"t{number}")
        _check(one)


def test_a_full_disk_stops_the_worker_and_the_next_one_goes_on(tmp_path: Path) -> None:
    partly = 0
    for file_bytes in (120_000, 160_000, 200_000):
        folder = tmp_path / str(file_bytes)
        folder.mkdir()
        partly += _fill_and_go_on(folder, file_bytes)
    assert partly > 0


def _fill_and_go_on(folder: Path, file_bytes: int) -> bool:
    """Run a task with little room, then with enough; whether it was stopped in its middle."""
    small = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({file_bytes}, {file_bytes})); "
    program = f"{small}import runpy; runpy.run_path({str(DRIVER)!r}, run_name='__main__')"
    arguments = [str(folder), "1000000", "1"]
    full = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    before = bodies(str(folder / "whole.db"))
    stopped = "cannot be written" in full.stderr
    assert stopped != any('"task_finished"' in body for body in before)
    # Later, so that the first run's lease is over.
    again = [sys.executable, str(DRIVER), *arguments, "", "1000"]
    ran = subprocess.run(again, capture_output=True, text=True, check=True, timeout=200)  # noqa: S603
    assert json.loads(ran.stdout.splitlines()[0])["points"] > 0
    after = bodies(str(folder / "whole.db"))
    assert after[: len(before)] == before
    events = list(iter_events(body.encode() for body in after))
    (ended,) = [event for event in events if isinstance(event, TaskFinished)]
    assert ended.status == "succeeded", ended.error
    done = [e.step_id for e in events if isinstance(e, AttemptFinished) and e.outcome == "ok"]
    assert len(set(done)) == len(done) == 5
    return stopped and bool(before)
