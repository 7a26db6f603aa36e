"""The statements behind the task store, the same for every database.

Everything here runs inside a transaction of `GroupWriter`, and may run again when the database was
away: a call finds what it did before and does it no second time.
"""

from typing import Any, cast

import msgspec

from steelyard.domain.agent import AgentLimit
from steelyard.domain.events import (
    AttemptFinished,
    CancelRequested,
    Event,
    TaskFinished,
    TaskResumed,
)
from steelyard.store import waiting_sql
from steelyard.store.backend import Backend, EventRow, TaskToAdd
from steelyard.store.tasks import Claim, HeldTask, TaskRow, TaskState

# The state of a task that has not ended; what it is doing then follows from its lease.
_OPEN = "open"


def submit(backend: Backend, tasks: list[TaskToAdd]) -> list[bool]:
    """Put tasks into the store, unless their ids or keys are there.

    Returns:
        For each whether it asks for a lease and has it: it is new, or still this worker's.
    """
    first: dict[str, TaskToAdd] = {}
    for task in tasks:
        first.setdefault(task.task_id, task)
    added = backend.add_tasks(list(first.values()))
    leased: list[bool] = []
    for task in tasks:
        is_new = task.task_id in added and first[task.task_id] is task
        leased.append(bool(task.worker) and (is_new or _is_held(backend, task)))
    return leased


def _is_held(backend: Backend, task: TaskToAdd) -> bool:
    """Did this worker submit the task before, and has it still?"""
    rows = backend.execute(
        "SELECT 1 FROM tasks WHERE task_id = ? AND state = ? AND worker = ? AND fence = 1",
        (task.task_id, _OPEN, task.worker),
    )
    return bool(rows)


def task_with_key(backend: Backend, key: str) -> str | None:
    """Which task was submitted with this key?"""
    rows = backend.execute("SELECT task_id FROM tasks WHERE caller_key = ?", (key,))
    return str(rows[0][0]) if rows else None


def bodies(backend: Backend, task_id: str) -> list[bytes]:
    """The events of a task, in order."""
    sql = "SELECT body FROM events WHERE task_id = ? ORDER BY seq"
    return [bytes(body) for (body,) in backend.execute(sql, (task_id,))]


def task_bodies_after(backend: Backend, task_id: str, after: int) -> list[tuple[int, bytes]]:
    """The events of a task beyond a number of the log, with their numbers, in order."""
    sql = "SELECT seq, body FROM events WHERE task_id = ? AND seq > ? ORDER BY seq"
    return [(int(seq), bytes(body)) for seq, body in backend.execute(sql, (task_id, after))]


def bodies_after(backend: Backend, after: int, limit: int) -> list[tuple[int, bytes]]:
    """The events after a number of the log, in order, as (number, JSON)."""
    sql = "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
    return [(int(seq), bytes(body)) for seq, body in backend.execute(sql, (after, limit))]


def bodies_of_kind(backend: Backend, kind: str, upto: int) -> list[bytes]:
    """All events of a kind up to a number of the log, in order; looks through all of it."""
    sql = "SELECT body FROM events WHERE kind = ? AND seq <= ? ORDER BY seq"
    return [bytes(body) for (body,) in backend.execute(sql, (kind, upto))]


_FAMILY = (
    "WITH RECURSIVE family (task_id) AS (SELECT task_id FROM tasks WHERE task_id = ?"
    " UNION SELECT tasks.task_id FROM tasks JOIN family ON tasks.parent = family.task_id)"
)


def family_attempts(backend: Backend, task_id: str) -> list[bytes]:
    """The ends of all attempts of a task and of its children."""
    rows = backend.execute(
        f"{_FAMILY} SELECT body FROM events JOIN family ON events.task_id = family.task_id"  # noqa: S608 - a constant
        " WHERE kind = ? ORDER BY seq",
        (task_id, str(AttemptFinished.__struct_config__.tag)),
    )
    return [bytes(body) for (body,) in rows]


def claim(backend: Backend, wish: Claim) -> list[tuple[str, str, int, list[bytes]]]:
    """Take tasks for a worker: (task, agent, fence, events) of each."""
    if any(limit.max_running or limit.starts for limit in wish.agents.values()):
        backend.lock_agents()
    if wish.wake:
        waiting_sql.wake_due(backend)
    room = {
        agent: _room(backend, agent, limit, wish.count)
        for agent, limit in sorted(wish.agents.items())
    }
    taken: list[tuple[str, str, int, list[bytes]]] = []
    while len(taken) < wish.count:
        open_to = [agent for agent, count in room.items() if count > 0]
        found = _candidates(backend, wish, open_to, wish.count - len(taken))
        chosen = [one for one in found if _take_room(room, one[1])]
        taken += _take(backend, wish, chosen)
        if len(found) == len(chosen):
            break
    return taken


def _room(backend: Backend, agent: str, limit: AgentLimit, count: int) -> int:
    """How many more tasks of an agent may start now?"""
    room = count
    if limit.max_running is not None:
        held = backend.execute(
            "SELECT count(*) FROM tasks WHERE worker <> '' AND state = ? AND agent = ?"  # noqa: S608 - a constant
            f" AND lease_until_s > {backend.now_sql}",
            (_OPEN, agent),
        )
        room = min(room, limit.max_running - int(held[0][0]))
    if limit.starts is not None:
        started = backend.execute(
            "SELECT count(*) FROM tasks WHERE agent = ? AND started_s > 0"  # noqa: S608 - a constant
            f" AND started_s > {backend.now_sql} - ?",
            (agent, limit.per_s),
        )
        room = min(room, limit.starts - int(started[0][0]))
    return max(0, room)


def _take_room(room: dict[str, int], agent: str) -> bool:
    room[agent] -= 1
    return room[agent] >= 0


def _candidates(
    backend: Backend, wish: Claim, agents: list[str], count: int
) -> list[tuple[Any, ...]]:
    if not agents:
        return []
    marks = ", ".join("?" * len(agents))
    return backend.execute(
        f"SELECT task_id, agent, fence FROM tasks WHERE state = 'open'"  # noqa: S608 - marks alone
        f" AND lease_until_s <= {backend.now_sql} AND worker <> ? AND agent IN ({marks})"
        f" ORDER BY priority DESC, number LIMIT ?{backend.skip_locked}",
        (wish.worker, *agents, count),
    )


def _take(
    backend: Backend, wish: Claim, chosen: list[tuple[Any, ...]]
) -> list[tuple[str, str, int, list[bytes]]]:
    """Give tasks to a worker, all in two statements, and read their journals."""
    if not chosen:
        return []
    task_ids = [task_id for task_id, _, _ in chosen]
    marks = ", ".join("?" * len(task_ids))
    backend.execute(
        "UPDATE tasks SET worker = ?, fence = fence + 1,"  # noqa: S608 - marks alone
        f" lease_until_s = {backend.now_sql} + ?,"
        f" started_s = CASE WHEN started_s > 0 THEN started_s ELSE {backend.now_sql} END"
        f" WHERE task_id IN ({marks})",
        (wish.worker, wish.lease_s, *task_ids),
    )
    resumed = [
        TaskResumed(t_s=wish.t_s, task_id=task_id, worker=wish.worker, fence=fence + 1)
        for task_id, _, fence in chosen
        if fence > 0
    ]
    if resumed:
        backend.insert_events([_row(event) for event in resumed])
    journals: dict[str, list[bytes]] = {task_id: [] for task_id in task_ids}
    rows = backend.execute(
        f"SELECT task_id, body FROM events WHERE task_id IN ({marks}) ORDER BY seq",  # noqa: S608 - marks alone
        task_ids,
    )
    for task_id, body in rows:
        journals[task_id].append(bytes(body))
    return [(task_id, agent, fence + 1, journals[task_id]) for task_id, agent, fence in chosen]


def renew(backend: Backend, worker: str, lease_s: float) -> list[HeldTask]:
    """Prolong a worker's leases and tell what it holds."""
    backend.execute(
        f"UPDATE tasks SET lease_until_s = {backend.now_sql} + ? WHERE worker = ?",  # noqa: S608 - a constant
        (lease_s, worker),
    )
    return held(backend, worker)


def held(backend: Backend, worker: str) -> list[HeldTask]:
    """What does a worker hold?"""
    rows = backend.execute(
        "SELECT task_id, fence, cancelled, signals FROM tasks WHERE worker = ? ORDER BY number",
        (worker,),
    )
    return [
        HeldTask(task_id=task_id, fence=fence, cancelled=bool(cancelled), signals=signals)
        for task_id, fence, cancelled, signals in rows
    ]


def release(backend: Backend, task_id: str, fence: int) -> None:
    """Give a task back."""
    backend.execute(
        "UPDATE tasks SET worker = '', lease_until_s = 0 WHERE task_id = ? AND fence = ?",
        (task_id, fence),
    )


def cancel(backend: Backend, task_id: str, t_s: float) -> bool:
    """Mark a task and its children; end those at once that nobody holds."""
    rows = backend.execute(
        f"{_FAMILY} UPDATE tasks SET cancelled = 1 WHERE cancelled = 0"  # noqa: S608 - a constant
        " AND state IN ('open', 'waiting') AND task_id IN (SELECT task_id FROM family)"
        " RETURNING task_id, worker",
        (task_id,),
    )
    for one, worker in sorted(rows):
        backend.insert_events([_row(CancelRequested(t_s=t_s, task_id=one))])
        if not worker:
            ended = TaskFinished(t_s=t_s, task_id=one, status="cancelled")
            backend.insert_events([_row(ended)])
            backend.execute("UPDATE tasks SET state = 'cancelled' WHERE task_id = ?", (one,))
            waiting_sql.wake_parents(backend, [one])
    return any(one == task_id for one, _ in rows)


def retry(backend: Backend, row: EventRow) -> bool:
    """Open an ended task again."""
    opened = backend.execute(
        "UPDATE tasks SET state = 'open', cancelled = 0, worker = '', lease_until_s = 0"
        " WHERE task_id = ? AND state NOT IN ('open', 'waiting') RETURNING task_id",
        (row.task_id,),
    )
    if opened:
        backend.insert_events([row])
    return bool(opened)


def tasks(backend: Backend, *, state: str, limit: int, task_id: str) -> list[TaskRow]:
    """List tasks, the newest first."""
    wanted = {"told = ?": state, "task_id = ?": task_id}
    # Only conditions that are asked for: with "or none is", one task is not found by its index.
    asked = {condition: value for condition, value in wanted.items() if value}
    rows = backend.execute(
        "SELECT * FROM (SELECT task_id, agent, CASE WHEN state <> 'open' THEN state"  # noqa: S608 - constants
        f" WHEN lease_until_s > {backend.now_sql} THEN 'running' ELSE 'queued' END AS told,"
        " priority, submitted_s, worker, fence, parent, number FROM tasks) AS shown"
        f" WHERE {' AND '.join(['1 = 1', *asked])} ORDER BY number DESC LIMIT ?",
        (*asked.values(), limit),
    )
    return [
        TaskRow(
            task_id=one[0],
            agent=one[1],
            state=cast("TaskState", one[2]),
            priority=one[3],
            submitted_s=one[4],
            worker=one[5] if one[2] == "running" else "",
            fence=one[6],
            parent=one[7],
        )
        for one in rows
    ]


def _row(event: Event) -> EventRow:
    kind = str(event.__struct_config__.tag)
    return EventRow(event.t_s, kind, getattr(event, "task_id", None), _encode(event), None, None)


def _encode(event: Event) -> bytes:
    return msgspec.json.encode(event)
