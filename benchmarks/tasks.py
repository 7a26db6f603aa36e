"""How fast is the durable runtime? Tasks of ten no-op steps, recovery, and resuming; with peers.

Run as `python benchmarks/tasks.py [--rounds N] [--peers PYTHON]`, with `--workers 1,2,4` for many
worker processes on one PostgreSQL, `--memory-tasks 100000` for the memory, `--waiting 10000` for
what sleeping tasks cost, and `--concurrent 1000` for what running ones do.
PostgreSQL is measured where Debian's package is present: a server of the benchmark's own, on a
socket, with fsync. The peers are measured in turns with Steelyard, each in a process of its own,
by an interpreter that has them:

    python -m venv peers
    peers/bin/pip install dbos langgraph langgraph-checkpoint-sqlite "psycopg[binary]"
    python benchmarks/tasks.py --peers peers/bin/python

The bare log (benchmarks/peers/tasks_bare.py) has no runtime at all: it tells how fast machine and
disk are on the day, so that rates of different days can be compared.

A task's submission, its ten steps and its end are each on disk before they are acknowledged: one
task by itself cannot be faster than twelve flushes. The time of a flush is printed, and `--folder
/dev/shm` leaves the disk out of it, for all. There is no chance in it, so there is no seed.
"""

import argparse
import datetime as dt
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import task_concurrency  # noqa: E402
import task_runs as runs  # noqa: E402
import task_waiting  # noqa: E402
from tests.store.postgres_server import MISSING, PostgresServer, postgres_server  # noqa: E402

Stores = dict[str, Callable[[int], str]]
Results = dict[str, list[runs.Speed]]


def speed_of_own(where: str, tasks: int) -> runs.Speed:
    """Steelyard's, in this process."""
    return uvloop.run(runs.speed(where, tasks, tasks // 5))


def speed_of_peer(python: str, program: str, where: str, tasks: int) -> runs.Speed:
    """What a peer's program measures in a process of its own."""
    path = ROOT / "benchmarks" / "peers" / program
    ran = subprocess.run(  # noqa: S603
        [python, path, where, str(tasks)], capture_output=True, text=True, check=True, timeout=300
    )
    return msgspec.json.decode(ran.stdout.splitlines()[-1], type=runs.Speed)


def measured(
    results: Results, name: str, server: PostgresServer | None, run: "partial[runs.Speed]"
) -> None:
    """Run, and add what the database used meanwhile; every program runs 6/5 of its tasks."""
    before_s = 0.0 if server is None else server.cpu_s()
    found = run()
    if server is not None:
        used_s = 1000 * (server.cpu_s() - before_s) / (1.2 * run.args[-1])
        found = msgspec.structs.replace(found, database_cpu_s=used_s)
    results.setdefault(name, []).append(found)


def compare(
    asked: argparse.Namespace, folder: Path, stores: Stores, server: PostgresServer | None
) -> None:
    """Print tasks per second of every runtime and store, measured in turns."""
    results: Results = {}
    for number in range(asked.rounds):
        flush_ms = 1e3 / runs.flushes_per_s(folder)
        print(
            f"round {number + 1}: flush {flush_ms:.2f} ms, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for store, address in stores.items():
            used = server if store == "PostgreSQL" else None
            own = partial(speed_of_own, address(number), asked.tasks)
            measured(results, f"steelyard, {store}", used, own)
            if store == "SQLite":
                log = str(folder / f"bare{number}.db")
                bare = partial(speed_of_peer, sys.executable, "tasks_bare.py", log, asked.tasks)
                measured(results, "bare log, SQLite", used, bare)
            if not asked.peers:
                continue
            tasks = max(50, asked.tasks // 20)
            url = f"sqlite:///{folder / f'dbos{number}.db'}"
            url = url if store == "SQLite" else address(number)
            dbos = partial(speed_of_peer, asked.peers, "tasks_dbos.py", url, tasks)
            measured(results, f"DBOS, {store}", used, dbos)
            if store == "SQLite":
                path = str(folder / f"langgraph{number}.db")
                graph = partial(speed_of_peer, asked.peers, "tasks_langgraph.py", path, tasks)
                measured(results, "LangGraph, SQLite", used, graph)
    told(asked.rounds, results)


def told(rounds: int, results: Results) -> None:
    """Print the table, and Steelyard's ratios to its peers, each from the same round."""
    print(f"\ntasks/s of ten steps, median of {rounds} rounds (range); CPU s per 1,000 tasks")
    print(f"{'':24}{'one by one':>20}{'CPU':>7}{'100 at once':>22}{'CPU':>7}{'database':>10}")
    for name, found in results.items():
        line = f"{name:24}"
        for kind in ("sequential", "concurrent"):
            values = [getattr(one, kind) for one in found]
            used = statistics.median(getattr(one, f"cpu_s_{kind}") for one in found)
            spread = f"({min(values):.0f}-{max(values):.0f})"
            line += f"{statistics.median(values):9.0f} {spread:>12}{used:7.2f}"
        database = statistics.median(one.database_cpu_s for one in found)
        print(line + (f"{database:10.2f}" if database else ""))
    for name, found in results.items():
        own = results[f"steelyard, {name.split(', ')[1]}"]
        if own is found or name.startswith("bare"):
            continue
        pairs = list(zip(own, found, strict=True))
        print(f"steelyard / {name}:", end="")
        for kind, label in (("sequential", "one by one"), ("concurrent", "100 at once")):
            ratios = [getattr(a, kind) / getattr(b, kind) for a, b in pairs]
            cpu = [getattr(b, f"cpu_s_{kind}") / getattr(a, f"cpu_s_{kind}") for a, b in pairs]
            print(
                f" {label} {statistics.median(ratios):.1f}x ({min(ratios):.1f}-{max(ratios):.1f}),"
                f" of its CPU 1/{statistics.median(cpu):.0f};",
                end="",
            )
        print()


def scaling(asked: argparse.Namespace, server: PostgresServer) -> None:
    """Print tasks per second of several worker processes on one database, in turns."""
    counts = [int(count) for count in asked.workers.split(",")]
    print(
        f"workers on one PostgreSQL, {asked.tasks} tasks in all, median of {asked.rounds} (range)"
    )
    found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in counts}
    for number in range(asked.rounds):
        print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
        for count in counts:
            where = server.new_database()
            before_s = server.cpu_s()
            rate, cpu_s = runs.with_workers(__file__, where, count, asked.tasks)
            database_s = 1000 * (server.cpu_s() - before_s) / asked.tasks
            found[count].append((rate, cpu_s, database_s))
    # Rates of one round were measured on a machine that was about as busy.
    first = found[min(counts)]
    for count, rows in found.items():
        rates, cpu_s, database_s = zip(*rows, strict=True)
        pairs = zip(rates, first, strict=True)
        times = statistics.median(rate * min(counts) / one[0] for rate, one in pairs)
        print(
            f"  {count} workers: {statistics.median(rates):6.0f} tasks/s"
            f" ({min(rates):.0f}-{max(rates):.0f}), efficiency {times / count:.2f}; CPU s per 1,000"
            f" tasks: workers {statistics.median(cpu_s):.2f}, database"
            f" {statistics.median(database_s):.2f}"
        )


def resume_and_takeover(asked: argparse.Namespace, stores: Stores) -> None:
    """Print how fast a task goes on, after a restart and after its worker's death."""
    steps = asked.resume_steps
    for store, address in stores.items():
        resumed = [uvloop.run(runs.resume_s(address(90 + n), steps)) for n in range(asked.rounds)]
        wall, cpu = zip(*resumed, strict=True)
        taken = [
            uvloop.run(runs.takeover_s(__file__, address(190 + n))) for n in range(asked.rounds)
        ]
        print(
            f"{store}: resume of {steps} steps {1e3 * statistics.median(wall):.0f} ms"
            f" (longest {1e3 * max(wall):.0f}; CPU {1e3 * statistics.median(cpu):.0f}); "
            f"kill -9 to takeover, lease {runs.LEASE_S:g} s: "
            f"{statistics.median(taken):.2f} s (longest {max(taken):.2f})"
        )


def memory(tasks: int, where: str) -> None:
    """Print resident memory every 10,000 tasks, and how fast it grows after the first 20,000."""
    print(
        f"\nresident memory, 100 at once, {where.partition(':')[0] if '://' in where else 'SQLite'}"
    )
    every = min(10_000, tasks)
    found = uvloop.run(runs.memory(where, tasks, every))
    later = [row for row in found if row[0] >= 20_000]
    if len(later) > 1:
        slope = statistics.linear_regression([row[0] for row in later], [row[1] for row in later])
        print(f"  slope after 20,000 tasks: {slope.slope:.1f} bytes per task")


def waiting(tasks: int, due_s: float, stores: Stores) -> None:
    """Print what so many sleeping tasks cost their worker."""
    for store, address in stores.items():
        found = uvloop.run(task_waiting.waiting(address(0), tasks, due_s))
        print(
            f"{store}: {tasks} tasks parked in {found.parked_s:.1f} s; asleep they take "
            f"{found.bytes_per_task:.0f} bytes each and {100 * found.cpu_frac:.1f} % of a core "
            f"(an idle worker {100 * found.idle_frac:.1f} %); all due at once, all done after "
            f"{found.done_s:.1f} s"
        )


def options() -> argparse.Namespace:
    """What is asked for?"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=1000, help="tasks per round; peers a 20th")
    parser.add_argument("--peers", default="", help="interpreter that has the peers")
    parser.add_argument("--workers", default="", help="only measure worker processes: 1,2,4")
    parser.add_argument("--resume-steps", type=int, default=1000)
    parser.add_argument("--memory-tasks", type=int, default=0, help="only measure the memory")
    parser.add_argument("--waiting", type=int, default=0, help="only measure sleeping tasks")
    parser.add_argument("--concurrent", type=int, default=0, help="only measure running tasks")
    parser.add_argument("--due", type=float, default=60.0, help="seconds that they sleep")
    parser.add_argument("--folder", default=None, help="where stores lie; /dev/shm has no disk")
    parser.add_argument("--store", default="", help=argparse.SUPPRESS)
    parser.add_argument("--hang", default="", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure what is asked for."""
    asked = options()
    if asked.hang:
        uvloop.run(runs.hang(asked.store, asked.hang))
        return
    if asked.share:
        uvloop.run(runs.share(asked.store, asked.share))
        return
    tempfile.tempdir = asked.folder
    now = dt.datetime.now(tz=dt.UTC).isoformat(timespec="minutes")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{now}  {machine}, stores in {tempfile.gettempdir()}, no seed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if asked.memory_tasks:
            memory(asked.memory_tasks, str(folder / "memory.db"))
            return
        stores: Stores = {"SQLite": lambda number: str(folder / f"own{number}.db")}
        server = None
        if not MISSING:
            server = stack.enter_context(postgres_server(fsync=True))
            stores["PostgreSQL"] = lambda _: server.new_database()
        if asked.concurrent:
            task_concurrency.tell(asked.concurrent, {name: one(0) for name, one in stores.items()})
            return
        if asked.waiting:
            waiting(asked.waiting, asked.due, stores)
            return
        if asked.workers:
            if server is None:
                raise SystemExit(f"--workers needs PostgreSQL: {MISSING}")
            scaling(asked, server)
            return
        compare(asked, folder, stores, server)
        resume_and_takeover(asked, stores)
        size = runs.file_bytes_per_task(folder, 2000)
        print(f"on disk: {size:.0f} bytes per task of ten steps in SQLite")


if __name__ == "__main__":
    main()
