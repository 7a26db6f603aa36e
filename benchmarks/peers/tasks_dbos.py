"""Ten no-op steps per workflow on DBOS: `python tasks_dbos.py URL TASKS`; see benchmarks/tasks.py.

URL is `sqlite:///PATH` (switched to WAL, which its default is not) or `postgresql://...`.
Prints one JSON object.
"""

import json
import resource
import sqlite3
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, SetWorkflowID

URL, TASKS = sys.argv[1], int(sys.argv[2])
if URL.startswith("sqlite:///"):
    sqlite3.connect(URL.removeprefix("sqlite:///")).execute("PRAGMA journal_mode=WAL")
DBOS(config={"name": "bench", "system_database_url": URL, "log_level": "ERROR"})


@DBOS.step()
def noop(number: int) -> int:
    """Nothing."""
    return number


@DBOS.workflow()
def ten() -> None:
    """Ten steps."""
    for number in range(10):
        noop(number)


def one(_: int) -> None:
    """One workflow."""
    with SetWorkflowID(uuid.uuid4().hex):
        ten()


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


DBOS.launch()
one(0)
few = max(10, TASKS // 5)
start_s, start_cpu_s = time.perf_counter(), cpu_s()
for number in range(few):
    one(number)
sequential = few / (time.perf_counter() - start_s)
sequential_cpu_s = 1000 * (cpu_s() - start_cpu_s) / few
with ThreadPoolExecutor(100) as pool:
    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    list(pool.map(one, range(TASKS)))
    concurrent = TASKS / (time.perf_counter() - start_s)
told = {
    "sequential": sequential,
    "concurrent": concurrent,
    "cpu_s_sequential": sequential_cpu_s,
    "cpu_s_concurrent": 1000 * (cpu_s() - start_cpu_s) / TASKS,
}
print(json.dumps(told), flush=True)
DBOS.destroy()
