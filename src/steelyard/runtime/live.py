"""From settings to a running fleet: pools started, recorded, watched, and closed at the end."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from steelyard.config.catalog_table import Catalog
from steelyard.config.settings import Settings
from steelyard.config.spend_caps import check_providers, spend_caps
from steelyard.domain.events import PoolAdded
from steelyard.errors import ConfigError
from steelyard.placement.policy import Policy
from steelyard.runtime.autoscaling import Autoscaler
from steelyard.runtime.background import in_background
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.fleet_changes import LiveFleet, wanted_limits
from steelyard.runtime.load_sharing import endpoint_places, shared_loads
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.spend_sharing import shared_spend
from steelyard.runtime.starting import PoolStarter, Progress, RunningPool
from steelyard.store.event_log import EventLog
from steelyard.store.event_store import EventStore


@asynccontextmanager
async def live_fleet(
    settings: Settings,
    catalog: Catalog | None,
    policy: Policy,
    log: EventLog,
    progress: Progress = lambda _: None,
) -> AsyncGenerator[Dispatcher, None]:
    """Start all pools and dispatch to them while the block runs.

    Embedded pools without a figures file are calibrated when they are up, so that the first
    placement is made from figures of this machine.

    Args:
        settings: What to run.
        catalog: Prices and speeds; None reads those of the package where a pool needs them.
        policy: Places steps.
        log: Where events are kept; it is not closed.
        progress: Told what is being done.

    Yields:
        The dispatcher.

    Raises:
        ConfigError: A pool cannot be started as configured.
        PoolUnavailableError: A pool died while starting.
    """
    async with changing_fleet(settings, catalog, policy, log, progress) as fleet:
        yield fleet.dispatcher


@asynccontextmanager
async def changing_fleet(
    settings: Settings,
    catalog: Catalog | None,
    policy: Policy,
    log: EventLog,
    progress: Progress = lambda _: None,
) -> AsyncGenerator[LiveFleet, None]:
    """As `live_fleet`, with a fleet whose pools can be changed while it runs."""
    recorder = Recorder(WallClock(), log)
    limits = _pool_limits(settings, log)
    starter = PoolStarter(catalog, progress, spend_caps(settings.limits))
    specs = (starter.spec(name, pool) for name, pool in settings.pools.items())
    check_providers(settings.limits, specs)
    pools: dict[str, RunningPool] = {}
    try:
        for name, pool in settings.pools.items():
            pools[name] = started = await starter.start(name, pool, settings.aliases)
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=started.known_as))
        dispatcher = Dispatcher(
            recorder,
            policy,
            {name: one.llm for name, one in pools.items() if one.llm is not None},
            {name: one.tools for name, one in pools.items() if one.tools is not None},
            limits=limits,
        )
        dispatcher.hedge_up_to(settings.gateway.hedge_frac)
        fleet = LiveFleet(dispatcher, starter, pools, limits)
        for one in pools.values():
            one.watch.attach(dispatcher)
        scaling = Autoscaler(dispatcher, pools, progress).run()
        try:
            async with (
                in_background("autoscaling", scaling),
                _sharing(settings, log, dispatcher, pools),
                _spending(log, dispatcher),
            ):
                yield fleet
        finally:
            await fleet.close()
    finally:
        for one in reversed(pools.values()):
            await one.close()


@asynccontextmanager
async def _sharing(
    settings: Settings,
    log: EventLog,
    dispatcher: Dispatcher,
    pools: Mapping[str, RunningPool],
) -> AsyncGenerator[None, None]:
    if settings.store.share_load and isinstance(log, EventStore):
        async with shared_loads(log.loads, dispatcher, lambda: endpoint_places(pools)):
            yield
    else:
        yield


@asynccontextmanager
async def _spending(log: EventLog, dispatcher: Dispatcher) -> AsyncGenerator[None, None]:
    if isinstance(log, EventStore):
        async with shared_spend(log.spend, dispatcher.state.spend) as sharing:
            dispatcher.placing.spend = sharing
            yield
    else:
        yield


def _pool_limits(settings: Settings, log: EventLog) -> PoolLimits:
    limits = wanted_limits(settings)
    if isinstance(log, EventStore):
        return PoolLimits(log, limits)
    if limits:
        raise ConfigError("limits need a store to count in; give store.path")
    return PoolLimits.none()
