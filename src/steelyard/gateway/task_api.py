"""/api/tasks and /api/steps: durable tasks that workers run, and why steps went where they did."""

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from steelyard.domain.events import (
    Event,
    JsonValue,
    SignalSent,
    TaskFinished,
    TaskRetried,
    TaskStatus,
    TaskSubmitted,
)
from steelyard.errors import TaskNotFoundError
from steelyard.gateway import sse
from steelyard.gateway.errors_http import RequestError, too_large
from steelyard.gateway.headers import NAME, TASK_ID
from steelyard.gateway.settings import GatewayLimits
from steelyard.gateway.wire import parse_json, parse_request
from steelyard.ledger.ledger import Ledger
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.explanation import explained
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.store.event_store import EventStore
from steelyard.store.tasks import ENDED, STATES, Submission, TaskRow

_LOOK_S = 0.2
_MAX_LISTED = 1000
_T = TypeVar("_T")
_MAX_KEY_CHARS = 256
# What an INTEGER column of every store holds.
_MAX_PRIORITY = 2**31 - 1
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._:\-]")
_MAX_AGENT_CHARS_IN_ID = 64


class NewTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/tasks`.

    Attributes:
        agent: Name of the agent, as workers know it: 1-128 printable ASCII characters.
        input: The agent's arguments by name.
        id: Id of the task, 1-128 letters, digits and `._:-`, as in `Steelyard-Task`; empty makes
            one. One that is there already stays as it is.
        key: Chosen by the caller, at most 256 printable characters; a second task with the same
            key is the first one.
        deadline_after_s: Seconds from now to the deadline; None without one.
        budget_usd: What it may cost; None without a limit.
        priority: Higher ones are taken first; at most 2**31 - 1 from zero.
    """

    agent: str
    input: dict[str, JsonValue] = {}
    id: str = ""
    key: str = ""
    deadline_after_s: float | None = None
    budget_usd: float | None = None
    priority: int = 0


class NewSignal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/tasks/ID/signal`: its name, and its value."""

    name: str
    value: JsonValue = None


class KnownTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of a task, durable or not.

    Attributes:
        task_id: The task.
        agent: Its agent.
        state: `open`, or how it ended.
        submitted_s: When its first request came, or when it was submitted.
        deadline_s: Its deadline; None without one.
        budget_usd: Its budget; None without one.
    """

    task_id: str
    agent: str
    state: TaskStatus | Literal["open"] = "open"
    submitted_s: float
    deadline_s: float | None
    budget_usd: float | None


class TaskApi:
    """Answers requests under /api/tasks.

    Args:
        store: Where the tasks are.
        dispatcher: Tells the time of the log.
        limits: Size and depth of bodies.
    """

    def __init__(self, store: EventStore, dispatcher: Dispatcher, limits: GatewayLimits) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._limits = limits

    def routes(self) -> list[Route]:
        """The paths, for Starlette."""
        one = "/api/tasks/{task_id}"
        return [
            Route("/api/tasks", self._list, methods=["GET"]),
            Route("/api/tasks", self._create, methods=["POST"]),
            Route(one, self._get, methods=["GET"]),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
            Route(f"{one}/signal", self._signal, methods=["POST"]),
            Route(f"{one}/events", self._events, methods=["GET"]),
            Route("/api/steps/{task_id}/{step_id:int}", self._step, methods=["GET"]),
        ]

    async def _list(self, request: Request) -> Response:
        """The newest tasks, at most 1000; `state` in the query takes those of one state."""
        state = request.query_params.get("state", "")
        if state and state not in STATES:
            raise RequestError(f"state {state[:128]!r} is none; take one of {', '.join(STATES)}")
        rows = await asyncio.wrap_future(self._store.tasks(state=state, limit=_MAX_LISTED))
        return _json({"object": "list", "data": rows})

    async def _create(self, request: Request) -> Response:
        """Submit a durable task; a worker that knows its agent runs it. See `NewTask`."""
        asked = await self._body(request, NewTask)
        _check(asked)
        now_s = self._dispatcher.now_s()
        limits = TaskLimits(deadline_after_s=asked.deadline_after_s, budget_usd=asked.budget_usd)
        event = TaskSubmitted(
            t_s=now_s,
            task_id=asked.id or _new_id(asked.agent),
            agent=asked.agent,
            deadline_s=limits.deadline_from(now_s),
            budget_usd=limits.budget_usd,
            arguments=asked.input,
        )
        submission = Submission(event=event, key=asked.key, priority=asked.priority)
        await asyncio.wrap_future(self._store.submit(submission))
        task_id = event.task_id
        if asked.key:
            known = await asyncio.wrap_future(self._store.task_with_key(asked.key))
            task_id = known or task_id
        return _json(await self._row(task_id), 201)

    async def _get(self, request: Request) -> Response:
        """One task: its state, deadline, budget, cost, result and steps.

        A task that only requests name is there, too, and `open` until it ends.
        """
        task_id = request.path_params["task_id"]
        rows = await self._rows(task_id)
        events: Sequence[Event] = ()
        if task_id.isprintable():
            events = await self._dispatcher.journal(task_id)
        known = _known(events)
        if known is None and not rows:
            raise _unknown(task_id)
        journal = Journal.of(events)
        finished = journal.finished
        if not rows and known is not None and known.state == "open":
            # It had ended by its silence, and goes on.
            finished = None
        cost_usd = Ledger.of(events).cost_usd
        if rows:
            # With its children, which a task of requests has not.
            cost_usd = await asyncio.wrap_future(self._store.cost_usd(task_id))
        return _json(
            {
                "task": rows[0] if rows else known,
                "deadline_s": known.deadline_s if known else None,
                "budget_usd": known.budget_usd if known else None,
                "cost_usd": cost_usd,
                "finished": finished,
                "steps": journal.in_order(),
            }
        )

    async def _cancel(self, request: Request) -> Response:
        """Let a task and its children end."""
        row = await self._row(request.path_params["task_id"])
        await asyncio.wrap_future(self._store.cancel(row.task_id, self._dispatcher.now_s()))
        return _json(await self._row(row.task_id), 202)

    async def _signal(self, request: Request) -> Response:
        """Send a value to a task that waits for it. See `NewSignal`."""
        row = await self._row(request.path_params["task_id"])
        sent = await self._body(request, NewSignal)
        if row.state in ENDED:
            raise RequestError(
                f"task {row.task_id[:128]} has ended ({row.state}); it takes no signal"
            )
        now_s = self._dispatcher.now_s()
        self._store.append(
            SignalSent(t_s=now_s, task_id=row.task_id, name=sent.name, value=sent.value)
        )
        await asyncio.wrap_future(self._store.durable())
        return _json(row, 202)

    async def _step(self, request: Request) -> Response:
        """Why did a step go where it went, and how right was that? By task and number of the step.

        One entry per placement or refusal, in order: candidates with verdict, predicted end and
        price, what was predicted, and beside it what was measured, where the attempt has ended.
        """
        task_id, step_id = request.path_params["task_id"], request.path_params["step_id"]
        events: Sequence[Event] = ()
        if task_id.isprintable():
            events = await self._dispatcher.journal(task_id)
        shown = explained(events, step_id)
        if not shown:
            raise TaskNotFoundError(f"task {task_id[:128]!r} has no step {step_id} in the log")
        return _json({"task_id": task_id, "step_id": step_id, "attempts": shown})

    async def _events(self, request: Request) -> Response:
        """A task's events as they come, as server-sent events, until it has ended."""
        row = await self._row(request.path_params["task_id"])
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(row.task_id), 200, headers, "text/event-stream")

    async def _stream(self, task_id: str) -> AsyncGenerator[bytes, None]:
        """A task's events as they come, until it has ended."""
        after = 0
        while True:
            # The state first: what ended the task is among the events that are read after it.
            row = await self._row(task_id)
            after, events = await asyncio.wrap_future(self._store.journal_after(task_id, after))
            for event in events:
                yield sse.event(msgspec.to_builtins(event))
            if row.state in ENDED:
                yield sse.DONE
                return
            await asyncio.sleep(_LOOK_S)

    async def _body(self, request: Request, kind: type[_T]) -> _T:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._limits.body_bytes:
                raise too_large(len(body), self._limits.body_bytes)
        return parse_request(parse_json(bytes(body), self._limits.json_depth), kind)

    async def _row(self, task_id: str) -> TaskRow:
        rows = await self._rows(task_id)
        if not rows:
            raise _unknown(task_id)
        return rows[0]

    async def _rows(self, task_id: str) -> list[TaskRow]:
        """The durable task of that id, if there is one."""
        # The command line takes other ids; what no store can hold is in none.
        if not task_id.isprintable():
            return []
        return await asyncio.wrap_future(self._store.tasks(task_id=task_id))


def _known(events: Sequence[Event]) -> KnownTask | None:
    """The task as its log tells; None without a submission."""
    known: KnownTask | None = None
    for event in events:
        match event:
            # Also of a task that ended and was named again: a submission opens it.
            case TaskSubmitted():
                known = KnownTask(
                    task_id=event.task_id,
                    agent=event.agent,
                    submitted_s=event.t_s,
                    deadline_s=event.deadline_s,
                    budget_usd=event.budget_usd,
                )
            case TaskRetried() if known:
                known = msgspec.structs.replace(
                    known,
                    state="open",
                    deadline_s=event.deadline_s,
                    budget_usd=event.budget_usd,
                )
            case TaskFinished() if known:
                known = msgspec.structs.replace(known, state=event.status)
            case _:
                pass
    return known


def _unknown(task_id: str) -> TaskNotFoundError:
    return TaskNotFoundError(f"task {task_id[:128]!r} does not exist; GET /api/tasks lists")


def _new_id(agent: str) -> str:
    return f"{_NOT_IN_IDS.sub('-', agent)[:_MAX_AGENT_CHARS_IN_ID]}-{uuid.uuid4().hex[:12]}"


def _check(asked: NewTask) -> None:
    """Refuse a task that could do nothing, or that no store or header can hold."""
    if not asked.agent:
        raise RequestError("agent is empty; name the agent as workers know it")
    if not NAME.fullmatch(asked.agent):
        raise RequestError(
            f"agent {asked.agent[:80]!r} is no name; send 1-128 printable ASCII characters"
        )
    if asked.id and not TASK_ID.fullmatch(asked.id):
        raise RequestError(f"id {asked.id[:80]!r} is none; send 1-128 letters, digits and ._:-")
    if len(asked.key) > _MAX_KEY_CHARS or not asked.key.isprintable():
        raise RequestError(
            f"key {asked.key[:80]!r} is none; send up to {_MAX_KEY_CHARS} printable characters"
        )
    if abs(asked.priority) > _MAX_PRIORITY:
        raise RequestError(f"priority is not from -{_MAX_PRIORITY} to {_MAX_PRIORITY}")
    for key in ("deadline_after_s", "budget_usd"):
        value: float | None = getattr(asked, key)
        if value is not None and not value > 0.0:
            raise RequestError(f"{key} is {value:g}; it must be greater than 0")


def _json(value: Any, status: int = 200) -> Response:  # noqa: ANN401 - JSON is any value
    return Response(
        msgspec.json.encode(value, enc_hook=sorted), status, media_type="application/json"
    )
