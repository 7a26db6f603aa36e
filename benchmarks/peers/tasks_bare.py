"""Ten rows per task in a bare SQLite log with group commit: `python tasks_bare.py PATH TASKS`.

No runtime, no leases, no replay, no cost: what the machine and SQLite give at best, as a yardstick
for benchmarks/tasks.py. WAL, synchronous=FULL; every row is on disk before its task goes on. One
thread commits all rows that have come in. Prints one JSON object.
"""

import asyncio
import json
import queue
import resource
import sqlite3
import sys
import threading
import time

import uvloop

PATH, TASKS = sys.argv[1], int(sys.argv[2])
STEPS = 10
ROW = "INSERT INTO log (task, step, body) VALUES (?, ?, ?)"

Waiting = tuple[tuple[int, int, str], "asyncio.Future[None]"]


def commits(rows: "queue.SimpleQueue[Waiting | None]", loop: asyncio.AbstractEventLoop) -> None:
    """Commit whatever has come in, until None comes."""
    database = sqlite3.connect(PATH, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, task INT, step INT, body TEXT)")
    while True:
        group = [rows.get()]
        while not rows.empty():
            group.append(rows.get())
        kept = [one for one in group if one is not None]
        database.execute("BEGIN IMMEDIATE")
        database.executemany(ROW, [row for row, _ in kept])
        database.execute("COMMIT")
        loop.call_soon_threadsafe(done, [waiter for _, waiter in kept])
        if len(kept) < len(group):
            return


def done(waiters: "list[asyncio.Future[None]]") -> None:
    """Let the tasks go on whose rows are on disk."""
    for waiter in waiters:
        waiter.set_result(None)


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    """Run tasks one after the other, then 100 at once."""
    rows: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=commits, args=(rows, loop))
    thread.start()

    async def one(task: int) -> None:
        for step in range(STEPS):
            waiter = loop.create_future()
            rows.put(((task, step, '{"result":1}'), waiter))
            await waiter

    await one(-1)
    told: dict[str, float] = {}
    few = max(10, TASKS // 5)
    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    for task in range(few):
        await one(task)
    told["sequential"] = few / (time.perf_counter() - start_s)
    told["cpu_s_sequential"] = 1000 * (cpu_s() - start_cpu_s) / few
    left = iter(range(TASKS))

    async def client() -> None:
        for task in left:
            await one(task)

    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    await asyncio.gather(*(client() for _ in range(100)))
    told["concurrent"] = TASKS / (time.perf_counter() - start_s)
    told["cpu_s_concurrent"] = 1000 * (cpu_s() - start_cpu_s) / TASKS
    rows.put(None)
    thread.join()
    print(json.dumps(told), flush=True)


uvloop.run(main())
