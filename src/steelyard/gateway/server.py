"""Listening: the gateway on a socket, in this process and this event loop."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncGenerator, Callable, Generator

import msgspec
import uvicorn

from steelyard.domain.events import PoolAdded
from steelyard.errors import ConfigError
from steelyard.gateway.app import Gateway, MakePages
from steelyard.gateway.keys_books import KeyDesk, key_desk
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.protocol import GatewayProtocol, gateway_protocol
from steelyard.gateway.settings import GatewaySettings
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.event_store import EventStore

_BACKLOG = 2048


class GatewayServer(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway that listens.

    Attributes:
        host: Address it is bound to.
        port: Port it is bound to, also where the settings asked for a free one.
        prepare: Checks other settings and returns what takes them; see `Gateway.prepare`.
        leave: Lets /readyz say no, while requests are served on; see `Gateway.leave`.
    """

    host: str
    port: int
    prepare: Callable[[GatewaySettings], Callable[[], None]]
    leave: Callable[[], None]

    @property
    def url(self) -> str:
        """Where the server is: `http://HOST:PORT`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call `base_url`: `http://HOST:PORT/v1`."""
        return f"{self.url}/v1"


@contextlib.asynccontextmanager
async def serve(
    settings: GatewaySettings,
    dispatcher: Dispatcher,
    metrics: Metrics | None = None,
    listener: socket.socket | None = None,
    store: EventStore | None = None,
    pages: MakePages | None = None,
) -> AsyncGenerator[GatewayServer, None]:
    """Serve the gateway while the block runs.

    The event loop is the caller's; uvloop is worth it (`asyncio.Runner(loop_factory=...)`). At
    the end, open requests get `shutdown_timeout_s` to finish.

    Args:
        settings: Where to listen, and for whom.
        dispatcher: Places and runs steps.
        metrics: What /metrics shows, subscribed to the dispatcher by the caller before the pools
            joined; None makes one, which counts from now on and takes all replicas for up.
        listener: A socket of `listen`; None binds one now.
        store: Where durable tasks are; None serves no /api/tasks.
        pages: Makes what serves all other paths; None serves none.

    Yields:
        The server, which listens already.

    Raises:
        ConfigError: The address cannot be bound.
    """
    if metrics is None:
        metrics = Metrics()
        for spec in dispatcher.state.pools:
            metrics.apply(PoolAdded(t_s=dispatcher.now_s(), spec=spec))
        dispatcher.subscribe(metrics.apply)
    async with _desk(store, dispatcher) as keys:
        gateway = Gateway(settings, dispatcher, metrics, store, keys, pages)
        closing = asyncio.create_task(gateway.close_silent_tasks())
        try:
            async with _listening(settings, gateway, listener) as server:
                yield server
        finally:
            closing.cancel()
            await asyncio.wait({closing})


@contextlib.asynccontextmanager
async def _desk(
    store: EventStore | None, dispatcher: Dispatcher
) -> AsyncGenerator[KeyDesk | None, None]:
    """The keys of a store; they are settled after the last request has ended."""
    if store is None:
        yield None
        return
    async with key_desk(store.keys, dispatcher) as desk:
        yield desk


@contextlib.asynccontextmanager
async def _listening(
    settings: GatewaySettings, gateway: Gateway, listener: socket.socket | None
) -> AsyncGenerator[GatewayServer, None]:
    protocol = gateway_protocol(settings.limits, gateway.admit, gateway.serve, gateway.serve_now)
    server = _EmbeddedServer(_uvicorn_config(settings, gateway, protocol))
    if listener is None:
        listener = listen(settings)
    host, port = listener.getsockname()[:2]

    def prepare(changed: GatewaySettings) -> Callable[[], None]:
        take = gateway.prepare(changed)

        def take_all() -> None:
            take()
            protocol.limits = changed.limits
            server.config.timeout_graceful_shutdown = changed.limits.shutdown_timeout_s

        return take_all

    running = asyncio.create_task(server.serve(sockets=[listener]))
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            listening.cancel()
            await running
        yield GatewayServer(host=host, port=port, prepare=prepare, leave=gateway.leave)
    finally:
        server.should_exit = True
        await running


class _EmbeddedServer(uvicorn.Server):
    """A uvicorn server that tells when it listens, and leaves signals to the program around it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _uvicorn_config(
    settings: GatewaySettings, gateway: Gateway, protocol: type[GatewayProtocol]
) -> uvicorn.Config:
    limits = settings.limits
    return uvicorn.Config(
        gateway,
        http=protocol,
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=limits.idle_timeout_s,
        timeout_graceful_shutdown=limits.shutdown_timeout_s,
    )


def listen(settings: GatewaySettings) -> socket.socket:
    """Take the address, so that a port in use is known before pools are started.

    Args:
        settings: Where to listen.

    Returns:
        A socket for `serve`, which closes it.

    Raises:
        ConfigError: The address cannot be bound.
    """
    where = f"gateway.host = {settings.host!r}, gateway.port = {settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        msg = f"{where}: the address is not known ({error.strerror}); use one of this machine"
        raise ConfigError(msg) from error
    try:
        # Without this, a restart would wait for the last connections of the old process.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        cure = "use an address of this machine, and a port that you may open"
        if error.errno == errno.EADDRINUSE:
            cure = f"port {settings.port} is in use; stop the other program, or set port = 0"
        msg = f"{where}: cannot listen ({error.strerror}); {cure}"
        raise ConfigError(msg) from error
    return listener
