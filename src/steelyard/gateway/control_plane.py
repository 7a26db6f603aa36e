"""The paths beside /v1: probes, metrics, the description of the API, and durable tasks."""

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from steelyard import __version__
from steelyard.errors import SteelyardError
from steelyard.gateway.cap_metrics import cap_metrics
from steelyard.gateway.errors_http import RequestError, error_response
from steelyard.gateway.metrics import CONTENT_TYPE, Metrics
from steelyard.gateway.openapi import openapi_document
from steelyard.gateway.settings import GatewayLimits
from steelyard.gateway.task_api import TaskApi
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.event_store import EventStore

# A store that is away for longer is told to clients; shorter absences only take longer.
AWAY_S = 2.0


def control_plane(
    dispatcher: Dispatcher,
    metrics: Metrics,
    store: EventStore | None,
    limits: GatewayLimits,
    leaving: asyncio.Event,
) -> Starlette:
    """The paths beside /v1.

    Args:
        dispatcher: Knows the pools.
        metrics: What /metrics shows.
        store: Where durable tasks are; None serves no /api/tasks.
        limits: Size and depth of bodies.
        leaving: Set when the gateway is about to stop.

    Returns:
        The application.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        up = dispatcher.ready()
        serving = [spec.name for spec in dispatcher.state.pools if spec.llm_curves]
        missing = [name for name in serving if not up.get(name)]
        away = store is not None and store.away_s > AWAY_S
        stopping = leaving.is_set()
        # One lost pool must not make every gateway unready: the others still serve.
        ready = len(missing) < len(serving) and not away and not stopping
        told = {
            "ready": ready,
            "stopping": stopping,
            "replicas_up": up,
            "pools_down": missing,
            "store_away": away,
        }
        return JSONResponse(told, status_code=200 if ready else 503)

    async def show_metrics(_: Request) -> Response:
        shown = metrics.render(dispatcher.under_way, dispatcher.tasks_open)
        shown += cap_metrics(dispatcher.state.spend.uses(dispatcher.now_s()))
        return Response(shown, headers={"content-type": CONTENT_TYPE.decode()})

    async def show_openapi(_: Request) -> Response:
        return JSONResponse(openapi_document(__version__))

    async def refused(request: Request, error: Exception) -> Response:
        headers = None
        if isinstance(error, HTTPException):
            headers = error.headers
            error = RequestError(
                f"{request.method} {request.url.path[:80]!r}: {error.detail}",
                status=error.status_code,
                code="unknown_path",
            )
        if not isinstance(error, SteelyardError):
            raise error
        told = error_response(error)
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in told.headers}
        sent |= headers or {}
        return Response(told.encoded(), told.status, sent, media_type="application/json")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
            Route("/openapi.json", show_openapi),
            *([] if store is None else TaskApi(store, dispatcher, limits).routes()),
        ],
        exception_handlers={HTTPException: refused, SteelyardError: refused},
    )
