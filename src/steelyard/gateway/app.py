"""The gateway: /v1 is the data plane, every other path is a Starlette application."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.types import ASGIApp

from steelyard.errors import (
    PoolError,
    PoolTimeoutError,
    PoolUnavailableError,
    SteelyardBugError,
    SteelyardError,
)
from steelyard.gateway import sse
from steelyard.gateway.auth import Authenticator
from steelyard.gateway.control_plane import AWAY_S, control_plane
from steelyard.gateway.data_plane import DataPlane
from steelyard.gateway.errors_http import (
    RequestError,
    StoreAwayError,
    error_response,
    forget_frames,
)
from steelyard.gateway.exchange import (
    AsgiExchange,
    Exchange,
    HttpRequest,
    Message,
    Receive,
    Scope,
    Send,
    json_lines,
)
from steelyard.gateway.keys_books import KeyDesk
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.quick import QuickRequest
from steelyard.gateway.settings import GatewaySettings
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.event_store import EventStore

_LOGGER = logging.getLogger("steelyard.gateway")
_ACCESS_LOGGER = logging.getLogger("steelyard.gateway.access")

# Probes of an orchestrator carry no key, and learn nothing but names of pools.
_OPEN_PATHS = frozenset(["/healthz", "/readyz"])
_KNOWN_PATHS = _OPEN_PATHS | {"/metrics", "/openapi.json"}
_CLIENT_LEFT = 499
# How often silent tasks are looked for.
_LOOK_S = 15.0


# Why a request may not be served, as HTTP status and message; None when it may.
Refusal = Callable[[HttpRequest], tuple[int, str] | None]
# Pages for people under every path that is not the gateway's own: made from who may see them, and
# what a pool's attempts came to.
MakePages = Callable[[Refusal, Callable[[str], Mapping[str, float]]], ASGIApp]


class Gateway:
    """Both planes: `serve` answers what is under /v1, as an ASGI application it answers the rest.

    Args:
        settings: The gateway's settings.
        dispatcher: Places and runs steps.
        metrics: Where requests are counted; it should be subscribed to the dispatcher already.
        store: Where durable tasks are; None serves no /api/tasks.
        keys: The store's keys; None knows those of the settings alone.
        pages: Makes what serves all other paths; None serves none.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        dispatcher: Dispatcher,
        metrics: Metrics,
        store: EventStore | None = None,
        keys: KeyDesk | None = None,
        pages: MakePages | None = None,
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._keys = keys
        self._store = store
        self._authenticator = Authenticator(settings, None if keys is None else keys.ring)
        self._admission = object()
        self._data_plane = DataPlane(settings, dispatcher)
        self._leaving = asyncio.Event()
        self._control_plane = control_plane(
            dispatcher, metrics, store, settings.limits, self._leaving
        )
        self._metrics = metrics
        self._pages = None if pages is None else pages(self._refusal, metrics.pool_totals)

    def leave(self) -> None:
        """Let /readyz say from now on that no requests are wanted here; those that come are served.

        Load balancers ask it, and send none any more after a while.
        """
        self._leaving.set()

    def prepare(self, settings: GatewaySettings) -> Callable[[], None]:
        """Check other settings, and say how to take them; where it listens does not change.

        Args:
            settings: The settings.

        Returns:
            Takes them at once; it cannot fail.

        Raises:
            ConfigError: They cannot be taken.
        """
        ring = None if self._keys is None else self._keys.ring
        authenticator = Authenticator(settings, ring)

        def take() -> None:
            self._settings = settings
            self._authenticator = authenticator
            self._admission = object()
            self._data_plane.change_settings(settings)

        return take

    async def close_silent_tasks(self) -> None:
        """Close tasks of which nothing was heard for `task_idle_s`, until this is cancelled."""
        while True:
            idle_s = self._settings.task_idle_s
            await asyncio.sleep(min(_LOOK_S, idle_s / 4.0))
            self._dispatcher.close_silent(self._dispatcher.now_s() - self._settings.task_idle_s)

    def admit(self, exchange: Exchange) -> None:
        """Refuse a request to the data plane by its head alone.

        Args:
            exchange: The request, without its body.

        Raises:
            RequestError: Who asks may not, or nothing like this is served here.
        """
        headers = exchange.headers
        known = headers.admitted_by is self._admission
        key = None if known else self._authenticator.check(exchange)
        if self._store is not None and self._store.away_s > AWAY_S:
            raise StoreAwayError(self._store.where, self._store.away_s)
        if known:
            return
        self._data_plane.admit(exchange)
        if key is None:
            # By line, headers and settings alone, so that the same are admitted again.
            headers.admitted_by = self._admission
        elif self._keys is not None:
            exchange.key = self._keys.books.use(key)
            exchange.key.admit()

    async def serve(self, exchange: Exchange) -> None:
        """Answer one request to the data plane; ends when its client leaves.

        Args:
            exchange: The request, whole.
        """
        if exchange.refusal is None:
            await self._serve(exchange, self._data_plane.handle(exchange))
            return
        _send_error(exchange, exchange.refusal)
        self._ended(exchange)

    def serve_now(self, exchange: Exchange) -> bool:
        """Answer one request to the data plane in callbacks alone, if it is that simple.

        Args:
            exchange: The request, whole.

        Returns:
            Whether it is being answered; False: nothing has happened, and `serve` must do it.
        """
        try:
            return self._data_plane.begin_quick(exchange, self)
        except SteelyardError:
            # The long way finds the same, and tells the client.
            return False

    def quick_done(self, quick: QuickRequest) -> None:
        """A request was answered in callbacks alone."""
        quick.exchange.answered_by(quick)
        self._ended(quick.exchange)

    def quick_failed(self, quick: QuickRequest, error: BaseException) -> None:
        """One failed for good."""
        exchange = quick.exchange
        exchange.answered_by(quick, later=True)
        self._tell(exchange, error)
        self._ended(exchange)

    def quick_retry(self, quick: QuickRequest, error: PoolError) -> None:
        """The first attempt of one failed: a task goes on with it."""
        exchange = quick.exchange
        exchange.answered_by(quick)
        exchange.go_on(self._serve(exchange, self._data_plane.go_on(quick, error)))

    async def _serve(self, exchange: Exchange, work: Awaitable[None]) -> None:
        try:
            await work
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - the request boundary
            self._tell(exchange, error)
            forget_frames(error)
        self._ended(exchange)

    def _tell(self, exchange: Exchange, error: BaseException) -> None:
        """Tell the client why there is no answer."""
        if isinstance(error, asyncio.CancelledError):
            if not exchange.left:
                _send_error(exchange, self._given_up(exchange))
        elif isinstance(error, SteelyardError):
            _send_error(exchange, error)
        else:
            _LOGGER.error("%s %s failed", exchange.method, exchange.path, exc_info=error)
            bug = SteelyardBugError("the gateway failed on this request; its log says why")
            _send_error(exchange, bug)

    def _ended(self, exchange: Exchange) -> None:
        self._data_plane.ended(exchange)
        if exchange.key is not None:
            exchange.key.settle()
        status = _CLIENT_LEFT if exchange.left else exchange.status
        self._metrics.http_request(self._data_plane.route(exchange.path), status)
        if self._settings.access_log:
            self._log(exchange, status, asyncio.get_running_loop().time() - exchange.started_s)

    def _given_up(self, exchange: Exchange) -> SteelyardError:
        if exchange.timed_out:
            limit_s = self._settings.limits.request_timeout_s
            return PoolTimeoutError(
                f"the answer was not complete within {limit_s:g} s and was given up"
            )
        # The server cancels requests only when the time to finish them is over.
        return PoolUnavailableError("the gateway is stopping; send the request again")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to the control plane.

        Args:
            scope: What is asked.
            receive: Gives the request body, and tells that the client has left.
            send: Takes the response.
        """
        started_s = time.monotonic()
        exchange = AsgiExchange(scope, send)
        try:
            await self._control(exchange, scope, receive, send)
        except asyncio.CancelledError:
            stopping = PoolUnavailableError("the gateway is stopping; send the request again")
            await _respond_error(exchange, stopping)
        except SteelyardError as error:
            await _respond_error(exchange, error)
        except Exception:
            _LOGGER.exception("%s %s failed", exchange.method, exchange.path)
            bug = SteelyardBugError("the gateway failed on this request; its log says why")
            await _respond_error(exchange, bug)
        route = exchange.path if exchange.path in _KNOWN_PATHS else "other"
        self._metrics.http_request(route, exchange.status)
        if self._settings.access_log:
            self._log(exchange, exchange.status, time.monotonic() - started_s)

    async def _control(
        self, exchange: AsgiExchange, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # Pages tell people, not programs, what is refused: they check by themselves.
        is_page = self._pages is not None and not _is_own(exchange.path)
        if exchange.path not in _OPEN_PATHS and not is_page:
            self._authenticator.check_control(exchange)

        async def watching_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif not message.get("more_body", False):
                exchange.finished = True
            await send(message)

        if self._pages is not None and is_page:
            await self._pages(scope, receive, watching_send)
        else:
            await self._control_plane(scope, receive, watching_send)

    def _refusal(self, request: HttpRequest) -> tuple[int, str] | None:
        try:
            self._authenticator.check_control(request)
        except RequestError as error:
            return error.status, str(error)
        return None

    def _log(self, exchange: Exchange | AsgiExchange, status: int, duration_s: float) -> None:
        step_key = exchange.step_key if isinstance(exchange, Exchange) else None
        task_id, step_id = step_key or (None, None)
        line = {
            "method": exchange.method,
            "path": exchange.path,
            "status": status,
            "duration_s": round(duration_s, 6),
            "task_id": task_id,
            "step_id": step_id,
            "pool": exchange.pool if isinstance(exchange, Exchange) else "",
            "key_id": exchange.key.key.key_id
            if isinstance(exchange, Exchange) and exchange.key
            else "",
        }
        _ACCESS_LOGGER.info("%s", msgspec.json.encode(line).decode())


def _is_own(path: str) -> bool:
    """Does a path belong to the control plane, whether it is served or not?"""
    return path in _KNOWN_PATHS or path.startswith(("/api/", "/v1")) or path == "/api"


def _send_error(exchange: Exchange, error: SteelyardError) -> None:
    if exchange.finished or exchange.left:
        return
    response = error_response(error)
    if exchange.status:
        # The status is out already; without [DONE] no client takes the answer for complete.
        exchange.end(sse.event(response.body))
    else:
        exchange.respond(response.status, response.encoded(), json_lines(response.headers))


async def _respond_error(exchange: AsgiExchange, error: SteelyardError) -> None:
    response = error_response(error)
    if not exchange.status:
        await exchange.respond(response.status, response.encoded(), response.headers)
