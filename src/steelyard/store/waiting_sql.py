"""The statements behind parked tasks, which wait in the store and in no worker.

A parked task is in state `waiting`, held by nobody; `lease_until_s` is when it goes on. Waking it
makes it an open task that the next free worker takes. Whoever wakes and whoever parks change the
same row, or lock it, so that no wake is missed.
"""

import math

from steelyard.store.backend import Backend
from steelyard.store.tasks import Parking


def park(backend: Backend, parking: Parking) -> None:
    """Park a task, or free it when what it waits for has come already."""
    children = list(parking.children)
    # A child that is ending right now is waited for: its end must be seen here, or see us.
    if children:
        backend.fences(sorted(children))
    marks = ", ".join("?" * len(children)) or "NULL"
    until_s = math.inf if parking.after_s is None else backend.now_s() + parking.after_s
    known = -1 if parking.signals is None else parking.signals
    rows = backend.execute(
        f"SELECT count(*) FROM tasks WHERE task_id IN ({marks})"  # noqa: S608 - marks alone
        " AND state NOT IN ('open', 'waiting')",
        children,
    )
    ended = int(rows[0][0])
    backend.execute(
        "UPDATE tasks SET worker = '',"
        " state = CASE WHEN ? > 0 OR cancelled = 1 OR (? >= 0 AND signals > ?)"
        " THEN 'open' ELSE 'waiting' END,"
        " lease_until_s = CASE WHEN ? > 0 OR cancelled = 1 OR (? >= 0 AND signals > ?)"
        " THEN 0.0 ELSE ? END"
        " WHERE task_id = ? AND fence = ? AND state = 'open'",
        (ended, known, known, ended, known, known, until_s, parking.task_id, parking.fence),
    )


def wake_due(backend: Backend, now_s: float) -> None:
    """Let parked tasks go on whose time has come."""
    backend.execute(
        "UPDATE tasks SET state = 'open', lease_until_s = 0.0 WHERE task_id IN"  # noqa: S608
        " (SELECT task_id FROM tasks WHERE state = 'waiting' AND lease_until_s <= ?"
        f"{backend.skip_locked})",
        (now_s,),
    )


def count_signal(backend: Backend, task_id: str) -> None:
    """A signal was sent to a task: if it is parked, it goes on."""
    backend.execute(
        "UPDATE tasks SET signals = signals + 1,"
        " lease_until_s = CASE state WHEN 'waiting' THEN 0.0 ELSE lease_until_s END,"
        " state = CASE state WHEN 'waiting' THEN 'open' ELSE state END WHERE task_id = ?",
        (task_id,),
    )


def wake_parents(backend: Backend, ended: list[str]) -> None:
    """Tasks have ended: parents that are parked go on."""
    # A child's id is its parent's, a dot and a path; most tasks are no children.
    children = [task_id for task_id in ended if "." in task_id]
    if not children:
        return
    marks = ", ".join("?" * len(children))
    backend.execute(
        "UPDATE tasks SET state = 'open', lease_until_s = 0.0 WHERE state = 'waiting'"  # noqa: S608 - marks alone
        f" AND task_id IN (SELECT parent FROM tasks WHERE task_id IN ({marks}))",
        children,
    )
