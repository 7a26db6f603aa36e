"""The dashboard as an application: routes, who may take them, and what goes around each answer."""

import asyncio
import mimetypes
from http import HTTPStatus
from importlib import resources
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from steelyard.dashboard.fleet_page import FleetPages
from steelyard.dashboard.forms import read_form
from steelyard.dashboard.guard import (
    COOKIE,
    HEADERS,
    SESSION_S,
    PageRequest,
    Sessions,
    comes_from_here,
)
from steelyard.dashboard.live import Ticker
from steelyard.dashboard.rendering import Renderer
from steelyard.dashboard.sheet_pages import SheetPages
from steelyard.dashboard.sources import Receive, Refusal, Scope, Send, Sources, Totals
from steelyard.dashboard.task_pages import TaskPages
from steelyard.errors import ConfigError, SteelyardError, TaskNotFoundError
from steelyard.store.reader import StoreReader

_OPEN_PATHS = frozenset({"/login", "/logout"})
_STATIC = "/static/"


class DashboardApp:
    """The application behind every path that is not the gateway's own.

    Args:
        sources: Where figures come from.
        refusal: Says who may not see them.
        totals: What each pool's attempts came to.
    """

    def __init__(self, sources: Sources, refusal: Refusal, totals: Totals) -> None:
        self._reader = StoreReader(sources.address)
        self._renderer = Renderer()
        self._sessions = Sessions(refusal)
        self._ticker = Ticker(self._reader)
        fleet = FleetPages(self._renderer, sources.dispatcher, totals)
        tasks = TaskPages(self._renderer, self._reader, sources)
        self._sheets = SheetPages(self._renderer, sources)
        self._sheets.warm_up()
        self._app = Starlette(
            routes=[
                *fleet.routes(),
                *tasks.routes(),
                *self._sheets.routes(),
                Route("/live", self._live),
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
                Route("/static/{name:path}", _static),
            ],
            exception_handlers={HTTPException: self._missing, SteelyardError: self._failed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded_send(message: Scope) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refused(Request(scope))
        await (refused or self._app)(scope, receive, guarded_send)

    async def close(self) -> None:
        """Let go of open pages."""
        await self._ticker.close()
        await self._sheets.close()
        await asyncio.to_thread(self._reader.close)

    def _refused(self, request: Request) -> Response | None:
        """The answer to a request that may not pass."""
        path = request.url.path
        if request.method not in {"GET", "HEAD"} and not comes_from_here(request.headers):
            return self._told(403, "this was not sent by a page of this dashboard; open it anew")
        asked = PageRequest(path, request.headers)
        token = request.cookies.get(COOKIE, "")
        reason = self._sessions.refused(asked, request.headers, token)
        if reason is None:
            return None
        if reason != "login":
            return self._told(403, reason)
        if path in _OPEN_PATHS or path.startswith(_STATIC):
            return None
        if request.headers.get("hx-request"):
            # The page around the part has to go to the login, not the part.
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        where = f"{path}?{request.url.query}" if request.url.query else path
        return RedirectResponse(f"/login?to={quote(where, safe='')}", 303)

    def _told(self, status: int, what: str) -> Response:
        values = {"title": f"{status} {HTTPStatus(status).phrase}", "what": what, "active": ""}
        return self._renderer.page("error", values, status)

    async def _missing(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = f"{request.method} {request.url.path[:80]} is no page of this dashboard"
        return self._told(status, what)

    async def _failed(self, _: Request, error: Exception) -> Response:
        status = 404 if isinstance(error, TaskNotFoundError) else 500
        return self._told(400 if isinstance(error, ConfigError) else status, str(error))

    async def _live(self, _: Request) -> Response:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            self._ticker.stream(), headers=headers, media_type="text/event-stream"
        )

    async def _login(self, request: Request) -> Response:
        to = _inside(request.query_params.get("to", "/"))
        values = {"title": "Sign in", "active": "", "to": to, "wrong": False}
        if request.method == "GET":
            return self._renderer.page("login", values)
        form = await read_form(request)
        to = _inside(form.get("to", "/"))
        token = self._sessions.open("/login", request.headers, form.get("key", "").strip())
        if token is None:
            return self._renderer.page("login", values | {"wrong": True, "to": to}, 401)
        answer = RedirectResponse(to, 303)
        answer.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def _logout(self, request: Request) -> Response:
        self._sessions.close(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer


def _inside(to: str) -> str:
    r"""A path of this dashboard; whatever might lead elsewhere becomes its first page.

    >>> _inside("/task?id=1"), _inside("//evil.example"), _inside("/\\evil.example")
    ('/task?id=1', '/', '/')
    """
    safe = to.startswith("/") and to[1:2] not in {"/", "\\"} and to.isprintable()
    return to if safe else "/"


async def _static(request: Request) -> Response:
    """A file that comes with the package; their names change with their contents' version."""
    folder = resources.files("steelyard.dashboard") / "static"
    known = {
        "app.css": folder / "app.css",
        "app.js": folder / "app.js",
        "theme.js": folder / "theme.js",
        "icon.svg": folder / "icon.svg",
    } | {f"vendor/{file.name}": file for file in (folder / "vendor").iterdir()}
    found = known.get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    kind = mimetypes.guess_type(found.name)[0] or "text/plain"
    body = found.read_bytes()
    return Response(body, headers=_cached(found.name), media_type=kind)


def _cached(name: str) -> dict[str, str]:
    # Vendored files carry their version in their name.
    is_fixed = any(letter.isdigit() for letter in name)
    return {"cache-control": "public, max-age=31536000, immutable" if is_fixed else "no-cache"}
