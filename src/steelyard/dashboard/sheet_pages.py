"""The pages that an analyst process answers: ledger, plan, what-if."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from steelyard.dashboard.analysts import AnalystClient, Job
from steelyard.dashboard.forms import read_form
from steelyard.dashboard.messages import Change, Question, Setup
from steelyard.dashboard.rendering import Renderer
from steelyard.dashboard.sources import Sources
from steelyard.errors import ConfigError

_BOOKS_LIMIT_S = 120.0
_PLAN_LIMIT_S = 180.0
# A page waits so long for figures that are ready, and shows progress after that.
_PATIENCE_S = 0.4
_FRESH_S = 1.5
_LEAST_FACTOR, _MOST_FACTOR = 0.25, 4.0


class SheetPages:
    """Shows sheets, and the progress of those that take a while.

    Args:
        renderer: Makes pages.
        sources: What there is to read.
    """

    def __init__(self, renderer: Renderer, sources: Sources) -> None:
        self._renderer = renderer
        setup = Setup(
            where=sources.address.where,
            password=sources.address.password,
            plan=str(sources.plan or ""),
            plan_settings=str(sources.plan_settings or ""),
        )
        self._sources = sources
        # Apart, so that the ledger is there while a plan is being made.
        self._books = AnalystClient(setup, _BOOKS_LIMIT_S)
        self._planner = AnalystClient(setup, _PLAN_LIMIT_S)
        self._books_job: Job | None = None

    def routes(self) -> list[Route]:
        """The pages, and the jobs on them."""
        return [
            Route("/ledger", self._ledger),
            Route("/ledger/first", self._ledger_first),
            Route("/ledger/part", self._ledger_part),
            Route("/plan", self._plan),
            Route("/plan/in-force", self._in_force),
            Route("/plan/anew", self._anew, methods=["POST"]),
            Route("/what-if", self._what_if),
            Route("/what-if/run", self._run_what_if, methods=["POST"]),
            Route("/job", self._job),
            Route("/job/cancel", self._cancel, methods=["POST"]),
        ]

    async def close(self) -> None:
        """End the processes."""
        await self._books.close()
        await self._planner.close()

    def warm_up(self) -> None:
        """Let the ledger be read while somebody looks at another page."""
        self._books_job = self._books.start(Question(kind="books"))

    async def _ledger(self, _: Request) -> Response:
        return self._renderer.page("ledger", _page("Ledger", "ledger", await self._read()))

    async def _ledger_first(self, _: Request) -> Response:
        return self._renderer.page("ledger_part", _page("Ledger", "ledger", await self._read()))

    async def _ledger_part(self, _: Request) -> Response:
        job = await self._read()
        if not job.ended:
            # What is on the page stays until there is something newer.
            return Response(status_code=204)
        return self._renderer.page("ledger_part", _page("Ledger", "ledger", job))

    async def _read(self) -> Job:
        """The books of this moment, or the reading of them that is going on for anybody.

        A page that waits for a long reading must find it when it asks again, not start another.
        """
        if self._books_job is None or self._books_job.ended_before(_FRESH_S):
            self._books_job = self._books.start(Question(kind="books"))
        await self._books.wait(self._books_job, _PATIENCE_S)
        return self._books_job

    async def _plan(self, _: Request) -> Response:
        return self._renderer.page("plan", {"title": "Plan", "active": "plan"})

    async def _in_force(self, _: Request) -> Response:
        job = await self._asked(self._books, Question(kind="in_force"))
        return self._shown(job)

    async def _anew(self, _: Request) -> Response:
        job = await self._asked(self._planner, Question(kind="anew"))
        return self._shown(job)

    async def _what_if(self, _: Request) -> Response:
        pools = self._sources.dispatcher.state.pools
        providers = sorted({spec.provider for spec in pools} | {"aws", "azure", "gcp"})
        values = {
            "title": "What-if",
            "active": "what-if",
            "providers": providers,
            "least": _LEAST_FACTOR,
            "most": _MOST_FACTOR,
        }
        return self._renderer.page("what_if", values)

    async def _run_what_if(self, request: Request) -> Response:
        change = _change(await read_form(request))
        job = await self._asked(self._planner, Question(kind="what_if", change=change))
        return self._shown(job)

    async def _job(self, request: Request) -> Response:
        return self._shown(self._found(request.query_params.get("id", "")))

    async def _cancel(self, request: Request) -> Response:
        job = self._found((await read_form(request)).get("id", ""))
        if self._planner.job(job.job_id) is job:
            await self._planner.cancel(job)
        return self._shown(job)

    def _found(self, job_id: str) -> Job:
        job = self._planner.job(job_id) or self._books.job(job_id)
        if job is None:
            raise HTTPException(404)
        return job

    async def _asked(self, client: AnalystClient, question: Question) -> Job:
        job = client.start(question)
        await client.wait(job, _PATIENCE_S)
        return job

    def _shown(self, job: Job) -> Response:
        values = {"job": job, "can_cancel": self._planner.job(job.job_id) is job}
        return self._renderer.page("job", values)


def _page(title: str, active: str, job: Job) -> dict[str, object]:
    return {"title": title, "active": active, "job": job, "can_cancel": False}


def _change(form: Mapping[str, str]) -> Change:
    """What the sliders say.

    Raises:
        ConfigError: A factor is none, or outside of the sliders.
    """
    factors = {name: form.get(name, "1") for name in ("price", "load", "deadline")}
    numbers: dict[str, float] = {}
    for name, text in factors.items():
        try:
            numbers[name] = float(text)
        except ValueError as error:
            raise ConfigError(f"{name} {text[:20]!r} is no number; use the slider") from error
        if not _LEAST_FACTOR <= numbers[name] <= _MOST_FACTOR:
            raise ConfigError(f"{name} {text[:20]} is not from {_LEAST_FACTOR} to {_MOST_FACTOR}")
    return Change(
        scope=form.get("scope", "all")[:200],
        price_factor=numbers["price"],
        load_factor=numbers["load"],
        deadline_factor=numbers["deadline"],
    )
