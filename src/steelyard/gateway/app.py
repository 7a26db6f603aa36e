"""The gateway as one ASGI application: /v1 is ours, every other path is a Starlette app."""

import asyncio
import logging
import time

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from steelyard.errors import PoolUnavailableError, SteelyardBugError, SteelyardError
from steelyard.gateway import sse
from steelyard.gateway.auth import Authenticator
from steelyard.gateway.data_plane import DataPlane
from steelyard.gateway.errors_http import RequestError, error_response
from steelyard.gateway.exchange import Exchange, Message, Receive, Scope, Send
from steelyard.gateway.metrics import CONTENT_TYPE, Metrics
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.task_api import TaskApi
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.event_store import EventStore

_LOGGER = logging.getLogger("steelyard.gateway")
_ACCESS_LOGGER = logging.getLogger("steelyard.gateway.access")

# Probes of an orchestrator carry no key, and learn nothing but names of pools.
_OPEN_PATHS = frozenset(["/healthz", "/readyz"])
_KNOWN_PATHS = _OPEN_PATHS | {"/metrics"}
_CLIENT_LEFT = 499


class Gateway:
    """The ASGI application.

    Args:
        settings: The gateway's settings.
        dispatcher: Places and runs steps.
        metrics: Where requests are counted; it should be subscribed to the dispatcher already.
        store: Where durable tasks are; None serves no /api/tasks.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        dispatcher: Dispatcher,
        metrics: Metrics,
        store: EventStore | None = None,
    ) -> None:
        self._settings = settings
        self._authenticator = Authenticator(settings)
        self._data_plane = DataPlane(settings, dispatcher)
        self._control_plane = control_plane(dispatcher, metrics, store)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Args:
            scope: What is asked.
            receive: Gives the request body, and tells that the client has left.
            send: Takes the response.
        """
        started_s = time.monotonic()
        exchange = Exchange(scope, receive, send)
        try:
            await self._handle(exchange, scope, receive, send)
        except asyncio.CancelledError:
            # The server cancels requests only when the time to finish them is over.
            stopping = PoolUnavailableError("the gateway is stopping; send the request again")
            await _send_error(exchange, stopping)
        except SteelyardError as error:
            await _send_error(exchange, error)
        except Exception:
            _LOGGER.exception("%s %s failed", exchange.method, exchange.path)
            bug = SteelyardBugError("the gateway failed on this request; its log says why")
            await _send_error(exchange, bug)
        self._observe(exchange, time.monotonic() - started_s)

    async def _handle(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        if exchange.path not in _OPEN_PATHS:
            self._authenticator.check(exchange)
        if exchange.path.startswith("/v1/"):
            await self._data_plane.handle(exchange)
            return

        async def watching_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            await send(message)

        await self._control_plane(scope, receive, watching_send)

    def _observe(self, exchange: Exchange, duration_s: float) -> None:
        path = exchange.path
        route = path if path in _KNOWN_PATHS else self._data_plane.route(path)
        status = _CLIENT_LEFT if exchange.left else exchange.status
        self._metrics.http_request(route, status)
        if self._settings.access_log:
            task_id, step_id = exchange.step_key or (None, None)
            line = {
                "method": exchange.method,
                "path": path,
                "status": status,
                "duration_s": round(duration_s, 6),
                "task_id": task_id,
                "step_id": step_id,
                "pool": exchange.pool,
            }
            _ACCESS_LOGGER.info("%s", msgspec.json.encode(line).decode())


def control_plane(
    dispatcher: Dispatcher, metrics: Metrics, store: EventStore | None = None
) -> Starlette:
    """The paths beside /v1.

    Args:
        dispatcher: Knows the pools.
        metrics: What /metrics shows.
        store: Where durable tasks are; None serves no /api/tasks.

    Returns:
        The application.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        up = dispatcher.ready()
        serving = [spec.name for spec in dispatcher.state.pools if spec.llm_curves]
        missing = [name for name in serving if not up.get(name)]
        ready = bool(serving) and not missing
        told = {"ready": ready, "replicas_up": up, "pools_down": missing}
        return JSONResponse(told, status_code=200 if ready else 503)

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE.decode()})

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
        return Response(told.encoded(), told.status, headers, media_type="application/json")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
            *([] if store is None else TaskApi(store, dispatcher).routes()),
        ],
        exception_handlers={HTTPException: refused, SteelyardError: refused},
    )


async def _send_error(exchange: Exchange, error: SteelyardError) -> None:
    response = error_response(error)
    if exchange.finished:
        return
    if exchange.status:
        # The status is out already; without [DONE] no client takes the answer for complete.
        await exchange.end(sse.event(response.body))
    else:
        await exchange.respond(response.status, response.encoded(), response.headers)
