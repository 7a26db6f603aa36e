"""How many bytes does the log grow by per 1,000 steps, in SQLite and PostgreSQL?

Run as `python benchmarks/log_size.py [--tasks 1000]`: tasks of ten steps, outside of pools, and
placed in one of three pools of tools. Indexes and the rows of the tasks are counted; what
a database keeps for its own sake (its write-ahead log) is not. There is no chance
in it, so there is no seed. PostgreSQL is measured where Debian's package is present.
"""

import argparse
import asyncio
import datetime as dt
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psycopg
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import task_runs as runs  # noqa: E402
from tests.runtime.conftest import tool_spec  # noqa: E402
from tests.store.postgres_server import MISSING, postgres_server  # noqa: E402

from steelyard.domain.events import PoolAdded  # noqa: E402
from steelyard.placement.policy import CheapestFeasible  # noqa: E402
from steelyard.pools.scripted import ScriptedLlmPool  # noqa: E402
from steelyard.pools.scripted_tools import ScriptedToolPool  # noqa: E402
from steelyard.runtime.clock import WallClock  # noqa: E402
from steelyard.runtime.context import TaskContext  # noqa: E402
from steelyard.runtime.definitions import task, tool  # noqa: E402
from steelyard.runtime.dispatcher import Dispatcher  # noqa: E402
from steelyard.runtime.recorder import Recorder  # noqa: E402
from steelyard.runtime.worker import AnyAgent, Worker, WorkerSettings  # noqa: E402
from steelyard.store.open_store import open_store  # noqa: E402

_STEPS = 10


@tool()
def nothing(number: int) -> int:
    """Nothing."""
    return number


@task(name="placed")
async def placed(ctx: TaskContext) -> None:
    """Ten steps in pools."""
    for number in range(_STEPS):
        await ctx.tool(nothing, number)


async def _fill(where: str, agent: AnyAgent, prefix: str, tasks: int) -> None:
    """Run so many tasks of an agent to their ends."""
    with open_store(where) as store:
        recorder = Recorder(WallClock(), store)
        specs = [msgspec.structs.replace(tool_spec(8), name=name) for name in ("a", "b", "c")]
        for spec in specs:
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
        pools = {spec.name: ScriptedToolPool() for spec in specs}
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, pools)
        gateway = (ScriptedLlmPool(), "none")
        worker = Worker(store, dispatcher, gateway, (agent,), WorkerSettings())
        async with worker.working():
            names = [f"{prefix}-{number}" for number in range(tasks)]
            await asyncio.gather(*(worker.submit(agent, one, runs.FREE, {}) for one in names))
            await asyncio.gather(*(worker.result(one) for one in names))


def _bytes(where: str) -> int:
    """Size of the log and the tasks, indexes included."""
    if "://" not in where:
        return sum(file.stat().st_size for file in Path(where).parent.glob(f"{Path(where).name}*"))
    tables = ("events", "tasks")
    with psycopg.connect(where) as database:
        found = [
            database.execute("SELECT pg_total_relation_size(%s)", (f"steelyard.{one}",)).fetchone()
            for one in tables
        ]
    return sum(int(row[0]) for row in found if row)


def main() -> None:
    """Fill stores, and print what they have grown by."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=1000, help="of ten steps each")
    tasks = parser.parse_args().tasks
    now = dt.datetime.now(tz=dt.UTC).isoformat(timespec="minutes")
    print(f"{now}  {platform.machine()}, Python {platform.python_version()}, {tasks} tasks each")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {"SQLite": lambda number: str(folder / f"{number}.db")}
        if not MISSING:
            server = stack.enter_context(postgres_server())
            stores["PostgreSQL"] = lambda _: server.new_database()
        for store, address in stores.items():
            for number, agent in enumerate((runs.ten, placed)):
                where = address(number)
                uvloop.run(_fill(where, agent, "first", 1))
                before = _bytes(where)
                uvloop.run(_fill(where, agent, "later", tasks))
                grown = (_bytes(where) - before) / (tasks * _STEPS)
                kind = "in pools" if agent is placed else "outside of pools"
                print(f"{store}: {grown:.0f} kB per 1,000 steps {kind}")


if __name__ == "__main__":
    main()
