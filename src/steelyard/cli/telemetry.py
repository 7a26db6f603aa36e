"""Whether a process tells OpenTelemetry what happens in it, and how."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from steelyard.config.environment import names_otlp_collector
from steelyard.config.pool_settings import EndpointPoolSettings
from steelyard.config.settings import Settings, TelemetrySection
from steelyard.domain.events import PoolAdded
from steelyard.errors import MissingExtraError
from steelyard.runtime.dispatcher import Dispatcher

_INSTALL = "OpenTelemetry is asked for and not installed; pip install 'steelyard[otel]'"


def wants_telemetry(section: TelemetrySection) -> bool:
    """Is anything to be told?

    Args:
        section: `[telemetry]` of the configuration.
    """
    told = section.traces or section.metrics
    return told and bool(section.endpoint or names_otlp_collector())


def wants_traces(section: TelemetrySection) -> bool:
    """Are spans to be told?"""
    return section.traces and wants_telemetry(section)


def pool_addresses(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Which base URLs do the replicas of endpoints have, by pool?"""
    return {
        name: pool.base_urls
        for name, pool in settings.pools.items()
        if isinstance(pool, EndpointPoolSettings)
    }


@asynccontextmanager
async def telling(settings: Settings, dispatcher: Dispatcher) -> AsyncGenerator[None, None]:
    """Tell a collector what happens while the block runs, where one is named.

    Args:
        settings: The configuration.
        dispatcher: What happens is recorded there.

    Raises:
        MissingExtraError: The SDK is not installed.
    """
    section = settings.telemetry
    if not wants_telemetry(section):
        yield
        return
    try:
        from steelyard.telemetry.meters import Meters
        from steelyard.telemetry.sdk import SpanSender
    except ImportError as error:
        raise MissingExtraError(_INSTALL) from error
    from steelyard.telemetry.fold import SpanFold
    from steelyard.telemetry.live import LiveTelemetry

    live = LiveTelemetry(
        SpanFold(pool_addresses(settings)),
        SpanSender(section.endpoint) if section.traces else None,
        Meters(section.endpoint) if section.metrics else None,
    )
    for spec in dispatcher.state.pools:
        live.hear(PoolAdded(t_s=dispatcher.now_s(), spec=spec))
    dispatcher.subscribe(live.hear)
    live.start()
    try:
        yield
    finally:
        # It waits for the collector.
        await asyncio.to_thread(live.close)
