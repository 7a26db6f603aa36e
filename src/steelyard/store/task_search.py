"""Which tasks were there? Pages of the log's tasks, the newest first, filtered and searched.

Durable tasks have a row of their own; tasks that only requests name do not. Both have a submission
in the log, so the log is what is paged, from its end, a bounded piece at a time. A request that
nobody named and that went the short way is one event without a submission, and is not listed.
"""

import math
from typing import Any, Literal

import msgspec

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.store.backend import Backend
from steelyard.store.tasks import STATES, TaskState

# `open`: named by requests alone, and not ended; nobody holds it.
ListedState = TaskState | Literal["open"]
LISTED_STATES: tuple[ListedState, ...] = ("open", *STATES)

# So many events are looked through for one page; what lies before is on the next one.
_MOST_EVENTS = 1_000_000
_CHUNK = 500
_SUBMITTED, _FINISHED, _PLACED, _ATTEMPT = (
    str(kind.__struct_config__.tag)
    for kind in (TaskSubmitted, TaskFinished, StepPlaced, AttemptFinished)
)


class TaskQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for.

    Attributes:
        agent: Only this agent's tasks; empty for all.
        state: Only tasks in this state; empty for all.
        text: Only tasks with this text, in any case, in id, agent or arguments; empty for all.
            Databases fold the case of ASCII for sure, of other letters where they can.
        before: Only tasks submitted before this number of the log; 0 for no limit.
        limit: At most so many.
    """

    agent: str = ""
    state: str = ""
    text: str = ""
    before: int = 0
    limit: int = 50


class ListedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task in a list.

    Attributes:
        number: Number of its submission in the log.
        task_id: The task.
        agent: Its agent.
        state: What it is doing.
        submitted_s: When it arrived, on the log's clock.
        finished_s: When it ended; None before.
        deadline_s: Its deadline; None without one.
        budget_usd: Its budget; None without one.
        cost_usd: What its own attempts cost up to now.
        attempts: How many of them have ended.
        error: Why it failed; empty otherwise.
        quiet_s: When the last attempt ended of a task that only requests name and that has none
            under way; it may be over, and a silence will tell. None otherwise.
    """

    number: int
    task_id: str
    agent: str
    state: ListedState
    submitted_s: float
    finished_s: float | None
    deadline_s: float | None
    budget_usd: float | None
    cost_usd: float = 0.0
    attempts: int = 0
    error: str = ""
    quiet_s: float | None = None


class TaskPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tasks.

    Attributes:
        tasks: The newest first.
        older: `before` of the next page; 0 when there is none.
    """

    tasks: tuple[ListedTask, ...]
    older: int = 0


class _Submission(msgspec.Struct, frozen=True):
    agent: str = ""
    deadline_s: float | None = None
    budget_usd: float | None = None
    t_s: float = 0.0
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _End(msgspec.Struct, frozen=True):
    t_s: float
    status: Literal["succeeded", "failed", "cancelled"]
    error: str = ""
    ended_s: float | None = None

    @property
    def finished_s(self) -> float:
        return self.t_s if self.ended_s is None else self.ended_s


class _Charge(msgspec.Struct, frozen=True):
    t_s: float = 0.0
    cost_usd: float = 0.0


def last_number(backend: Backend) -> int:
    """Number of the log's newest event; 0 without any."""
    return int(backend.execute("SELECT max(seq) FROM events")[0][0] or 0)


def agents(backend: Backend, limit: int) -> list[str]:
    """Agents of durable tasks, by name."""
    sql = "SELECT DISTINCT agent FROM tasks ORDER BY agent LIMIT ?"
    return [str(agent) for (agent,) in backend.execute(sql, (limit,))]


def search(backend: Backend, query: TaskQuery) -> TaskPage:
    """Which tasks are asked for?

    At most a million events are looked through; a page may then have fewer tasks than `limit`, or
    none, and `older` says where to go on.
    """
    top = query.before or last_number(backend) + 1
    floor = max(0, top - _MOST_EVENTS - 1)
    found: dict[str, ListedTask] = {}
    while len(found) < query.limit:
        chunk = _chunk(backend, query, top, floor)
        for task in _listed(backend, chunk):
            if len(found) < query.limit and _wanted(task, query):
                # Of a task that was submitted anew, the newest counts.
                found.setdefault(task.task_id, task)
                top = task.number
        if len(chunk) < _CHUNK:
            older = top if len(found) >= query.limit else floor + 1 if floor else 0
            return TaskPage(tasks=_charged(backend, found), older=older)
        if len(found) < query.limit:
            top = chunk[-1][0]
    return TaskPage(tasks=_charged(backend, found), older=top)


def listed(backend: Backend, task_id: str) -> ListedTask | None:
    """One task as it would be listed; None when there is none."""
    chunk = backend.execute(
        f"{_select(backend)} AND events.task_id = ? ORDER BY seq DESC LIMIT 1", (task_id,)
    )
    tasks = {one.task_id: one for one in _listed(backend, chunk)}
    return _charged(backend, tasks)[0] if tasks else None


def _select(backend: Backend) -> str:
    return (
        "SELECT seq, events.task_id, body,"  # noqa: S608 - constants
        " CASE WHEN tasks.task_id IS NULL THEN '' WHEN state <> 'open' THEN state"
        f" WHEN lease_until_s > {backend.now_sql} THEN 'running' ELSE 'queued' END"
        " FROM events LEFT JOIN tasks ON tasks.task_id = events.task_id"
        f" WHERE kind = '{_SUBMITTED}'"
    )


def _chunk(backend: Backend, query: TaskQuery, top: int, floor: int) -> list[tuple[Any, ...]]:
    """Submissions with a number below `top` and above `floor`, the newest first."""
    sql, values = f"{_select(backend)} AND seq < ? AND seq > ?", [top, floor]
    wanted: list[Any] = [*values]
    for text in (query.agent, query.text):
        if text:
            sql += f" AND lower({backend.body_text_sql}) LIKE ? ESCAPE '!'"
            wanted.append(_pattern(text))
    return backend.execute(f"{sql} ORDER BY seq DESC LIMIT {_CHUNK}", wanted)


def _pattern(text: str) -> str:
    """A text as it stands in JSON, wherever it stands."""
    written = msgspec.json.encode(text.lower()).decode()[1:-1]
    for special in "!%_":
        written = written.replace(special, f"!{special}")
    return f"%{written}%"


def _listed(backend: Backend, chunk: list[tuple[Any, ...]]) -> list[ListedTask]:
    ends = _ends(backend, [str(row[1]) for row in chunk])
    tasks: list[ListedTask] = []
    for number, task_id, body, told in chunk:
        said = msgspec.json.decode(bytes(body), type=_Submission)
        after, end = ends.get(task_id, (0, None))
        if after < number:
            end = None
        # A task that was opened again has an end in its log, and is open all the same.
        state: ListedState = told or (end.status if end else "open")
        if end is not None and state != end.status:
            end = None
        tasks.append(
            ListedTask(
                number=int(number),
                task_id=str(task_id),
                agent=said.agent,
                state=state,
                submitted_s=said.t_s,
                finished_s=None if end is None else end.finished_s,
                deadline_s=said.deadline_s,
                budget_usd=said.budget_usd,
                error="" if end is None else end.error,
            )
        )
    return tasks


def _ends(backend: Backend, task_ids: list[str]) -> dict[str, tuple[int, _End]]:
    """The last end of each task that has one, with its number."""
    if not task_ids:
        return {}
    rows = backend.execute(
        f"SELECT seq, task_id, body FROM events WHERE kind = '{_FINISHED}'"  # noqa: S608 - marks
        f" AND task_id IN ({', '.join('?' * len(task_ids))}) ORDER BY seq",
        task_ids,
    )
    return {
        str(task_id): (int(number), msgspec.json.decode(bytes(body), type=_End))
        for number, task_id, body in rows
    }


def _wanted(task: ListedTask, query: TaskQuery) -> bool:
    # The pattern also finds an agent's name in other places.
    return (not query.agent or task.agent == query.agent) and (
        not query.state or task.state == query.state
    )


def _charged(backend: Backend, tasks: dict[str, ListedTask]) -> tuple[ListedTask, ...]:
    """The same tasks with what their attempts cost."""
    if not tasks:
        return ()
    rows = backend.execute(
        f"SELECT task_id, body FROM events WHERE kind = '{_ATTEMPT}'"  # noqa: S608 - marks alone
        f" AND task_id IN ({', '.join('?' * len(tasks))}) ORDER BY seq",
        list(tasks),
    )
    charges: dict[str, list[_Charge]] = {task_id: [] for task_id in tasks}
    for task_id, body in rows:
        charges[str(task_id)].append(msgspec.json.decode(bytes(body), type=_Charge))
    placed = _placed(backend, [one.task_id for one in tasks.values() if one.state == "open"])
    return tuple(_with(task, charges[task.task_id], placed) for task in tasks.values())


def _placed(backend: Backend, task_ids: list[str]) -> dict[str, int]:
    """How many attempts of each task were placed?"""
    if not task_ids:
        return {}
    rows = backend.execute(
        f"SELECT task_id, count(*) FROM events WHERE kind = '{_PLACED}'"  # noqa: S608 - marks alone
        f" AND task_id IN ({', '.join('?' * len(task_ids))}) GROUP BY task_id",
        task_ids,
    )
    return {str(task_id): int(number) for task_id, number in rows}


def _with(task: ListedTask, charges: list[_Charge], placed: dict[str, int]) -> ListedTask:
    """The same task with what its attempts cost, and when the last of them ended."""
    is_quiet = bool(charges) and placed.get(task.task_id, math.inf) <= len(charges)
    return msgspec.structs.replace(
        task,
        cost_usd=math.fsum(one.cost_usd for one in charges),
        attempts=len(charges),
        quiet_s=max(one.t_s for one in charges) if is_quiet else None,
    )
