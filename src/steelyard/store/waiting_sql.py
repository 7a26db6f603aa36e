"""The statements behind parked tasks, which wait in the store and in no worker.

A parked task is in state `waiting`, held by nobody; `lease_until_s` is when it goes on. Waking it
makes it an open task that the next free worker takes. Whoever wakes and whoever parks change the
same row, or lock it, so that no wake is missed.
"""

import math

from steelyard.domain.events import StepWaiting
from steelyard.store.backend import Backend, EventRow
from steelyard.store.tasks import Parking

# A signal was sent to a task: if it is parked, it goes on.
COUNT_SIGNAL = (
    "UPDATE tasks SET signals = signals + 1,"
    " lease_until_s = CASE state WHEN 'waiting' THEN 0.0 ELSE lease_until_s END,"
    " state = CASE state WHEN 'waiting' THEN 'open' ELSE state END WHERE task_id = ?"
)


def park(backend: Backend, parking: Parking) -> None:
    """Park a task, or free it when what it waits for has come already."""
    # A child that is ending right now is waited for: its end must be seen here, or see us.
    ended = 0
    for child in sorted(parking.children):
        rows = backend.execute(
            f"SELECT state FROM tasks WHERE task_id = ?{backend.for_share}",  # noqa: S608
            (child,),
        )
        ended += any(state not in {"open", "waiting"} for (state,) in rows)
    known = -1 if parking.signals is None else parking.signals
    after_s = math.inf if parking.after_s is None else parking.after_s
    backend.execute(
        "UPDATE tasks SET worker = '',"  # noqa: S608 - a constant
        " state = CASE WHEN ? > 0 OR cancelled = 1 OR (? >= 0 AND signals > ?)"
        " THEN 'open' ELSE 'waiting' END,"
        " lease_until_s = CASE WHEN ? > 0 OR cancelled = 1 OR (? >= 0 AND signals > ?)"
        f" THEN 0.0 ELSE {backend.now_sql} + ? END"
        " WHERE task_id = ? AND fence = ? AND state = 'open'",
        (ended, known, known, ended, known, known, after_s, parking.task_id, parking.fence),
    )


def wake_due(backend: Backend) -> None:
    """Let parked tasks go on whose time has come."""
    backend.execute(
        "UPDATE tasks SET state = 'open', lease_until_s = 0.0 WHERE task_id IN"  # noqa: S608
        " (SELECT task_id FROM tasks WHERE state = 'waiting'"
        f" AND lease_until_s <= {backend.now_sql}{backend.skip_locked})"
    )


def wake_capped(backend: Backend) -> None:
    """Let parked tasks look again that have waited for room under spend caps."""
    backend.execute(
        "UPDATE tasks SET state = 'open', lease_until_s = 0.0 WHERE task_id IN"  # noqa: S608
        " (SELECT task_id FROM tasks WHERE state = 'waiting' AND EXISTS (SELECT 1 FROM events"
        " WHERE events.task_id = tasks.task_id AND kind = ? AND"
        f" {backend.body_text_sql} LIKE ?){backend.skip_locked})",
        (str(StepWaiting.__struct_config__.tag), '%"caps":{"%'),
    )


def ended_children(rows: list[EventRow]) -> list[str]:
    """Which tasks that end in these rows may be children?

    A child's id is its parent's, a dot and a path; most tasks are no children.
    """
    return [row.task_id for row in rows if row.ended and row.task_id and "." in row.task_id]


def wake_parents(backend: Backend, ended: list[str]) -> None:
    """Tasks have ended: parents that are parked go on."""
    if not ended:
        return
    marks = ", ".join("?" * len(ended))
    backend.execute(
        "UPDATE tasks SET state = 'open', lease_until_s = 0.0 WHERE state = 'waiting'"  # noqa: S608 - marks alone
        f" AND task_id IN (SELECT parent FROM tasks WHERE task_id IN ({marks}))",
        ended,
    )
