"""The pages of tasks: their list, one of them, and what may be asked for one."""

import asyncio
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from steelyard.dashboard.forms import read_form
from steelyard.dashboard.rendering import Renderer
from steelyard.dashboard.sources import Sources
from steelyard.dashboard.waterfall import MOST_BARS, shown_json, waterfall
from steelyard.domain.decision import Verdict
from steelyard.errors import TaskNotFoundError
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.retrying import retried
from steelyard.store.reader import StoreReader
from steelyard.store.task_search import LISTED_STATES, TaskQuery
from steelyard.store.tasks import ENDED

# Why a pool lost, for those who read the table; see `domain.decision.PoolVerdict`.
_MEANINGS: dict[Verdict, str] = {
    "chosen": "the step went there.",
    "dearer": "in time, but it would cost more by bid price, its queue counted.",
    "later": "no dearer, but it would end later, or take more than the step's share of the slack.",
    "too_late": "it would end after the deadline.",
    "over_budget": "it would cost more than what is left of the budget.",
    "cannot_run": "it does not have this model or tool.",
    "too_long": "prompt and answer do not fit its context.",
    "down": "none of its replicas takes steps: down, or its breaker is open.",
    "just_failed": "an attempt at this step failed there.",
    "under_way": "an attempt at this step still runs there.",
    "over_cap": "the step has no room in what is left of its provider's spend cap.",
}
_PER_PAGE = 50
_MAX_FILTER_CHARS = 200


class TaskPages:
    """Shows tasks as the log has them.

    Args:
        renderer: Makes pages.
        reader: Reads the log.
        sources: Takes what people ask for.
    """

    def __init__(self, renderer: Renderer, reader: StoreReader, sources: Sources) -> None:
        self._renderer = renderer
        self._reader = reader
        self._store = sources.store
        self._dispatcher = sources.dispatcher

    def routes(self) -> list[Route]:
        """All pages of tasks."""
        return [
            Route("/tasks", self._list),
            Route("/tasks/part", self._list_part),
            Route("/task", self._one),
            Route("/task/part", self._one_part),
            Route("/task/cancel", self._cancel, methods=["POST"]),
            Route("/task/retry", self._retry, methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        values = await self._listed(request)
        agents = await asyncio.wrap_future(self._reader.agents())
        values["agents"] = agents
        return self._renderer.page("tasks", values)

    async def _list_part(self, request: Request) -> Response:
        return self._renderer.page("tasks_part", await self._listed(request))

    async def _listed(self, request: Request) -> dict[str, object]:
        query = _query(request)
        page = await asyncio.wrap_future(self._reader.search(query))
        asked = {"agent": query.agent, "state": query.state, "text": query.text}
        kept = {name: value for name, value in asked.items() if value}
        return {
            "title": "Tasks",
            "active": "tasks",
            "page": page,
            "query": query,
            "states": LISTED_STATES,
            "now_s": self._dispatcher.now_s(),
            "here": urlencode(kept | ({"before": query.before} if query.before else {})),
            "older": urlencode(kept | {"before": page.older}) if page.older else "",
            "newest": urlencode(kept),
        }

    async def _one(self, request: Request) -> Response:
        return self._renderer.page("task", await self._shown(request))

    async def _one_part(self, request: Request) -> Response:
        return self._renderer.page("task_part", await self._shown(request))

    async def _shown(self, request: Request) -> dict[str, object]:
        task_id = _storable(request.query_params.get("id", ""))
        task, events = await asyncio.wrap_future(self._reader.task(task_id))
        if task is None:
            raise TaskNotFoundError(f"task {task_id[:128]!r} is not in the log")
        now_s = self._dispatcher.now_s()
        # Folding a long task takes a while.
        until_s = now_s if task.quiet_s is None else task.quiet_s
        fall = await asyncio.to_thread(waterfall, events, until_s)
        submitted = Journal.of(events[:1]).submitted
        return {
            "title": f"Task {task_id}",
            "active": "tasks",
            "task": task,
            "fall": fall,
            "most": MOST_BARS,
            "meanings": _MEANINGS,
            "now_s": now_s,
            "arguments": shown_json(submitted.arguments or None) if submitted else "",
            "parent": submitted.parent if submitted else "",
            "is_open": task.state not in ENDED,
            # A task that only requests name belongs to no worker that could go on with it.
            "is_durable": task.state != "open" and bool(await self._durable(task_id)),
        }

    async def _durable(self, task_id: str) -> bool:
        rows = await asyncio.wrap_future(self._store.tasks(task_id=task_id))
        return bool(rows)

    async def _cancel(self, request: Request) -> Response:
        task_id = _storable((await read_form(request)).get("id", ""))
        if not await self._durable(task_id):
            raise TaskNotFoundError(f"task {task_id[:128]!r} is none that a worker could end")
        now_s = self._dispatcher.now_s()
        await asyncio.wrap_future(self._store.cancel(task_id, now_s))
        return _to_task(task_id)

    async def _retry(self, request: Request) -> Response:
        task_id = _storable((await read_form(request)).get("id", ""))
        if not await self._durable(task_id):
            raise TaskNotFoundError(f"task {task_id[:128]!r} is none that could be retried")
        events = await asyncio.wrap_future(self._store.journal(task_id))
        journal = Journal.of(events)
        event = retried(task_id, journal, TaskLimits(), self._dispatcher.now_s())
        await asyncio.wrap_future(self._store.retry(event))
        return _to_task(task_id)


def _to_task(task_id: str) -> Response:
    return RedirectResponse(f"/task?id={quote(task_id, safe='')}", 303)


def _query(request: Request) -> TaskQuery:
    """What is asked for; what makes no sense is left out."""
    asked = request.query_params
    state = asked.get("state", "")
    before = asked.get("before", "")
    return TaskQuery(
        agent=_storable(asked.get("agent", "")),
        state=state if state in LISTED_STATES else "",
        text=_storable(asked.get("text", "")),
        before=int(before) if before.isdecimal() and len(before) < 18 else 0,
        limit=_PER_PAGE,
    )


def _storable(text: str) -> str:
    """What a database can hold of it, and no more than a name is long."""
    kept = text.replace("\0", "").encode("utf-8", "ignore").decode()
    return kept[:_MAX_FILTER_CHARS]
