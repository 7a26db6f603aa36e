"""Runs a small task graph again and again, each time killed at the next point; see test_crashes.

Prints one JSON line per point.
"""

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steelyard.domain.events import Event, PoolAdded
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import NO_KEY, IdempotencyKey, task, tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.backend import Backend, EventRow, TaskToAdd
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_backend import SqliteBackend

KILLED = 9
# The second process looks at the store so much later: every lease has run out by then.
LATER_S = 1000.0


class Fuse:
    """Kills this process at the chosen point; counts points otherwise."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def point(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            os._exit(KILLED)


class CrashingBackend:
    """Dies before or after every statement that matters, in any database."""

    def __init__(self, inner: Backend, fuse: Fuse, later_s: float) -> None:
        self._inner = inner
        self._fuse = fuse
        self.where = inner.where
        self.version = inner.version
        self.upgrade = inner.upgrade
        self.skip_locked = inner.skip_locked
        self.for_share = inner.for_share
        self.body_text_sql = inner.body_text_sql
        self.now_sql = f"({inner.now_sql} + {later_s})"
        self.rollback = inner.rollback
        self.execute_unflushed = inner.execute_unflushed
        self.lock_agents = inner.lock_agents
        self.close = inner.close

    def begin(self) -> None:
        self._fuse.point()
        self._inner.begin()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows = self._inner.execute(sql, parameters)
        if not sql.startswith("SELECT"):
            self._fuse.point()
        return rows

    def insert_events(self, rows: list[EventRow]) -> None:
        self._inner.insert_events(rows)

    def commit(self) -> None:
        self._fuse.point()
        self._inner.commit()
        self._fuse.point()

    def write(self, rows: list[EventRow], number: int) -> set[tuple[str, int]]:
        self._fuse.point()
        lost = self._inner.write(rows, number)
        self._fuse.point()
        return lost

    def add_tasks(self, tasks: list[TaskToAdd]) -> set[str]:
        self._fuse.point()
        added = self._inner.add_tasks(tasks)
        self._fuse.point()
        return added


class CrashingStore(EventStore):
    """Dies before or after every write to the log."""

    def __init__(self, where: str, fuse: Fuse, later_s: float) -> None:
        inner = _backend(where, fuse)
        super().__init__(CrashingBackend(inner, fuse, later_s))
        self._fuse = fuse

    def append(self, event: Event, fence: int | None = None) -> None:
        self._fuse.point()
        super().append(event, fence)
        self._fuse.point()


class PointedSqlite(SqliteBackend):
    """Dies between every two rows of a transaction, too."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self._fuse = fuse

    def begin(self) -> None:
        self._fuse.point()
        super().begin()

    def insert_events(self, rows: list[EventRow]) -> None:
        for row in rows:
            self._fuse.point()
            super().insert_events([row])

    def commit(self) -> None:
        self._fuse.point()
        super().commit()
        self._fuse.point()


def _backend(where: str, fuse: Fuse) -> Backend:
    if "://" not in where:
        return PointedSqlite(Path(where), fuse)
    from steelyard.store.postgres_backend import PostgresBackend  # noqa: PLC0415 - an extra

    return PostgresBackend(where, f"writer-{os.getpid()}-{time.time_ns()}")


class NotingTools:
    """Runs tools right here, and notes every run in a file, as the world outside would."""

    slots = 4

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, request: ToolRequest) -> ToolOutcome:
        with self._notes.open("a", encoding="utf-8") as notes:
            notes.write(json.dumps(request.arguments) + "\n")
        await asyncio.sleep(0)
        result = request.arguments["number"] + 1
        return ToolOutcome(result=result, cpu_s=0.5, wall_s=0.5, max_memory_bytes=0)


@tool()
def increase(number: int, key: IdempotencyKey = NO_KEY) -> int:
    """One more."""
    return number + 1 + 0 * len(key)


async def branch(ctx: TaskContext, number: int) -> int:
    higher = await ctx.tool(increase, number)
    await ctx.sleep(0.0)
    tenfold: int = await ctx.step(times_ten, higher)
    return tenfold


def times_ten(value: int) -> int:
    return value * 10


@task(name="graph")
async def graph(ctx: TaskContext, number: int) -> dict[str, Any]:
    drawn = await ctx.step(lambda: os.urandom(4).hex())
    first = await ctx.tool(increase, number)
    branches = await ctx.gather(branch(ctx, first), branch(ctx, first + 1))
    messages = [{"role": "user", "content": drawn}]
    answer = await ctx.llm(messages, step="ask", max_output_tokens=5)
    last = await ctx.tool(increase, sum(branches))
    return {"drawn": drawn, "answer": answer.text, "last": last, "branches": branches}


def pools() -> list[PoolSpec]:
    place: dict[str, Any] = {
        "provider": "local",
        "region": "here",
        "arch": "x86_64",
        "hardware": "x86",
        "offering": "local",
        "usd_per_hour": 3.6,
        "replicas": 1,
    }
    llm = LlmCurve(
        ttft_floor_s=0.001,
        prefill_s_per_token=0.0001,
        itl_base_s=0.001,
        itl_slope_s=0.0,
        concurrency_cap=8,
        context_tokens=8192,
        predicted=True,
        source="made up for tests",
    )
    tools = ToolCurve(
        relative_speed=1.0,
        cores=1.0,
        memory_bytes=10**9,
        start_s=0.0,
        slots=4,
        predicted=True,
        source="made up for tests",
    )
    return [
        PoolSpec(name="llm", llm_curves={"scripted": llm}, **place),
        PoolSpec(name="tools", tool_curve=tools, **place),
    ]


async def run_once(store: EventStore, notes: Path, over: Callable[[], None]) -> None:
    """Submit the task, unless it is there, and work until it has ended; `over` is called then."""
    recorder = Recorder(WallClock(), store)
    for spec in pools():
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    dispatcher = Dispatcher(
        recorder, CheapestFeasible(), {"llm": ScriptedLlmPool()}, {"tools": NotingTools(notes)}
    )
    async with serve(GatewaySettings(port=0), dispatcher) as server:
        client = OpenAiEndpointPool([server.base_url], ["scripted"])
        await client.start()
        # Looks at the store are points, too: rare ones keep their number the same in every run.
        settings = WorkerSettings(lease_s=30.0, look_s=0.5)
        worker = Worker(store, dispatcher, (client, "scripted"), (graph,), settings)
        async with worker.working():
            await worker.submit(graph, "t", TaskLimits(), {"number": 1})
            await worker.result("t")
            over()


def in_child(where: str, notes: Path, at: int, later_s: float) -> tuple[int, int]:
    """Run once in a process of its own: (exit code, points passed)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fuse = Fuse(at)
        store = CrashingStore(where, fuse, later_s)

        def over() -> None:
            store.close()
            os.write(writer, str(fuse.passed).encode())
            # Shutting the gateway down takes a while, and is not what is tested here.
            os._exit(0)

        asyncio.run(run_once(store, notes, over))
    os.close(writer)
    _, status = os.waitpid(child, 0)
    told = os.read(reader, 100)
    os.close(reader)
    return os.waitstatus_to_exitcode(status), int(told or b"0")


def main() -> None:
    """Called as `crash_driver.py FOLDER FIRST STEP [URL [LATER_S]]`.

    URL is that of a PostgreSQL server, or empty; LATER_S shifts the clock of the first run.
    """
    folder = Path(sys.argv[1])
    url = sys.argv[4] if len(sys.argv) > 4 else ""
    later_s = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    _, points = in_child(_place(folder, url, "whole"), folder / "whole.txt", 0, later_s)
    first, step = int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps({"points": points}), flush=True)  # noqa: T201
    for at in range(first, points + 1, step):
        where, notes = _place(folder, url, str(at)), folder / f"{at}.txt"
        killed, _ = in_child(where, notes, at, 0.0)
        # What a reader finds after the crash.
        (folder / f"{at}.before").write_text(json.dumps(bodies(where)), encoding="utf-8")
        # Every third point is hit by a second crash while it goes on.
        again = at * 7 % points + 1 if at % 3 == 0 else 0
        if again:
            in_child(where, notes, again, LATER_S)
        ended, _ = in_child(where, notes, 0, 2 * LATER_S)
        (folder / f"{at}.after").write_text(json.dumps(bodies(where)), encoding="utf-8")
        print(json.dumps({"at": at, "killed": killed, "ended": ended}), flush=True)  # noqa: T201


def _place(folder: Path, url: str, name: str) -> str:
    """A database of its own."""
    if not url:
        return str(folder / f"{name}.db")
    import psycopg  # noqa: PLC0415 - an extra

    database = f"crash{folder.name}x{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    return url.replace("@/postgres?", f"@/{database}?")


def bodies(where: str) -> list[str]:
    """Every event of a log as JSON."""
    if "://" in where:
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(where, autocommit=True) as database:
            (there,) = database.execute("SELECT to_regclass('steelyard.events')").fetchone() or (0,)
            sql = b"SELECT body FROM steelyard.events ORDER BY seq"
            return [bytes(row[0]).decode() for row in database.execute(sql)] if there else []
    if not Path(where).exists():
        return []
    connection = sqlite3.connect(where)
    try:
        rows = connection.execute("SELECT body FROM events ORDER BY seq").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were there
        rows = []
    connection.close()
    return [bytes(row[0]).decode() for row in rows]


if __name__ == "__main__":
    main()
