"""Ten no-op steps per workflow on DBOS: `python tasks_dbos.py URL TASKS`; see benchmarks/tasks.py.

URL is `sqlite:///PATH` (switched to WAL, which its default is not) or `postgresql://...`.
Prints one JSON object.
"""

import json
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


DBOS.launch()
one(0)
few = max(10, TASKS // 5)
start_s = time.perf_counter()
for number in range(few):
    one(number)
sequential = few / (time.perf_counter() - start_s)
with ThreadPoolExecutor(100) as pool:
    start_s = time.perf_counter()
    list(pool.map(one, range(TASKS)))
    concurrent = TASKS / (time.perf_counter() - start_s)
print(json.dumps({"sequential": sequential, "concurrent": concurrent}), flush=True)
DBOS.destroy()
