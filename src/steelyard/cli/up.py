"""`steelyard up`: the gateway as a server."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import uvloop

from steelyard.cli.gateway_note import NoteFile, this_process
from steelyard.cli.reload import Reloader
from steelyard.cli.store_choice import opened_store, store_address
from steelyard.cli.telemetry import telling, wants_traces
from steelyard.cli.upgrade import how_old
from steelyard.config.environment import read_keys
from steelyard.config.plan_settings import load_plan_settings
from steelyard.config.settings import DashboardSection, GatewaySection, Settings, load_settings
from steelyard.dashboard.mount import LazyDashboard
from steelyard.dashboard.sources import Sources
from steelyard.errors import ConfigError, StoreError
from steelyard.gateway.server import GatewayServer, listen, serve
from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.placement.baselines import policy_named
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.fleet_changes import LiveFleet
from steelyard.runtime.live import changing_fleet
from steelyard.store.backend import SCHEMA_VERSION
from steelyard.store.event_store import EventStore
from steelyard.store.reader import StoreAddress


def run_up(
    config: Path, store: str = "", plan: Path | None = None, *, as_json: bool = False
) -> None:
    """Start pools and gateway from a configuration file and serve until told to stop.

    Args:
        config: The TOML file.
        store: Store instead of the file's; empty for that one.
        plan: The plan in force instead of the file's, for the dashboard; None for that one.
        as_json: Once it serves, tell its address, models and store in a line of JSON on standard
            output, beside the sentences on standard error.

    Raises:
        SteelyardError: Something cannot be started as configured.
    """
    settings = load_settings(config)
    section = settings.dashboard
    if plan is not None:
        section = msgspec.structs.replace(section, plan=plan)
    _check_dashboard(section)
    _show_request_log()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, settings, store, section, as_json=as_json))


def _show_request_log() -> None:
    """Lines about requests go to standard error as they are; `request_log` says whether there are.

    A reload may turn them on, so this does not ask.
    """
    requests = logging.getLogger("steelyard.gateway.access")
    requests.addHandler(logging.StreamHandler(sys.stderr))
    requests.setLevel(logging.INFO)
    requests.propagate = False


def _check_dashboard(section: DashboardSection) -> None:
    """Refuse what a page would only show as an error once somebody opens it."""
    if section.plan is not None:
        from steelyard.cli.fleet_file import read_plan

        read_plan(section.plan)
    if section.plan_settings is not None:
        if not section.plan_settings.is_file():
            raise ConfigError(
                f"dashboard.plan_settings {section.plan_settings} does not exist; name a file as "
                "`steelyard plan --config` takes it, or leave it out"
            )
        load_plan_settings(section.plan_settings)


def gateway_settings(section: GatewaySection) -> GatewaySettings:
    """The gateway's settings as the file says, keys read.

    Args:
        section: `[gateway]` of the file.

    Returns:
        Settings that the gateway takes.

    Raises:
        ConfigError: The key file is unreadable, or a key is missing where one is needed.
    """
    return GatewaySettings(
        host=section.host,
        port=section.port,
        api_keys=() if section.api_keys_file is None else read_keys(section.api_keys_file),
        require_key=section.require_key,
        access_log=section.request_log,
        task_idle_s=section.task_idle_s,
        limits=GatewayLimits(body_bytes=section.max_body_bytes, shutdown_timeout_s=section.drain_s),
    )


def _front(settings: Settings) -> GatewaySettings:
    traced = wants_traces(settings.telemetry)
    return msgspec.structs.replace(gateway_settings(settings.gateway), traced=traced)


async def _serve(
    config: Path, settings: Settings, where: str, shown: DashboardSection, *, as_json: bool
) -> None:
    front = _front(settings)
    policy = policy_named(settings.policy.name)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    with listen(front) as listener, opened_store(settings.store, where) as log:
        async with changing_fleet(settings, None, policy, log, _say) as fleet:
            address = store_address(settings.store, where)
            if old := how_old(log, SCHEMA_VERSION):
                _say(old)
            pages = _dashboard(shown, address, fleet.dispatcher, log)
            async with (
                telling(settings, fleet.dispatcher),
                serve(
                    front, fleet.dispatcher, listener=listener, store=log, pages=pages.attach
                ) as server,
                aclosing(pages),
                _reloading(config, settings, (fleet, server)),
            ):
                settle_memory()
                _tell(server, fleet.dispatcher.models(), log.where, as_json=as_json)
                await _until_stopped(stop, log)
                await _leave(server, settings.gateway.unready_s)
                _say(f"stopping: open requests get {front.limits.shutdown_timeout_s} s to finish")


def _tell(server: GatewayServer, models: Sequence[str], where: str, *, as_json: bool) -> None:
    """Say that it serves, and where."""
    _say(f"serving {', '.join(models)} at {server.base_url} (log {where})")
    _say(f"dashboard at {server.url}")
    if as_json:
        told = {"base_url": server.base_url, "dashboard_url": server.url}
        print(
            msgspec.json.encode({**told, "models": list(models), "log": where}).decode(), flush=True
        )


async def _until_stopped(stop: asyncio.Event, log: EventStore) -> None:
    """Wait for a signal; a gateway that can record nothing any more ends, to be started again."""
    stopped = asyncio.create_task(stop.wait())
    broken = asyncio.create_task(_broken(log))
    try:
        await asyncio.wait({stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            raise broken.result()
    finally:
        stopped.cancel()
        broken.cancel()


async def _broken(log: EventStore) -> StoreError:
    return await asyncio.wrap_future(log.broken)


async def _leave(server: GatewayServer, unready_s: int) -> None:
    """Serve on for a while as one that load balancers are to leave."""
    server.leave()
    if unready_s > 0:
        _say(f"not ready any more: requests of the next {unready_s} s are served still")
        await asyncio.sleep(unready_s)


@asynccontextmanager
async def _reloading(
    config: Path, settings: Settings, parts: tuple[LiveFleet, GatewayServer]
) -> AsyncGenerator[None, None]:
    """Read the configuration anew at every SIGHUP, and note how that went."""
    reloader = Reloader(config, settings, _front, parts)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.ask)
    with ExitStack() as stack:
        note = NoteFile(this_process(config, parts[1].base_url))
        try:
            stack.enter_context(note)
        except OSError as error:
            _say(f"`steelyard reload` cannot find this gateway ({error}); send it SIGHUP")

        def begun() -> None:
            with suppress(OSError):
                note.write(msgspec.structs.replace(note.note, reading=True))

        def told(refused: str, changed: str) -> None:
            _say(f"reload refused: {refused}" if refused else f"reloaded: {changed}")
            answer = msgspec.structs.replace(
                note.note, reading=False, refused=refused, told=changed
            )
            with suppress(OSError):
                note.write(msgspec.structs.replace(answer, reloads=answer.reloads + 1))

        running = asyncio.create_task(reloader.run(begun, told))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def _dashboard(
    section: DashboardSection, address: StoreAddress, dispatcher: Dispatcher, store: EventStore
) -> LazyDashboard:
    return LazyDashboard(
        Sources(
            dispatcher=dispatcher,
            store=store,
            address=address,
            plan=section.plan,
            plan_settings=section.plan_settings,
        )
    )


def settle_memory() -> None:
    """Tell the garbage collector that what is loaded by now stays, and to look less often.

    A request leaves no cycles behind, and the modules are 60 MB to look through for some.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _say(what: str) -> None:
    print(f"steelyard: {what}", file=sys.stderr, flush=True)
