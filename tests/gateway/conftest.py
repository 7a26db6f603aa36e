"""A real gateway on a loopback port, in front of a real dispatcher and a scripted pool."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
import openai
import pytest

from steelyard.domain.events import Event, PoolAdded
from steelyard.domain.pool import LlmCurve, PoolSpec
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.server import GatewayServer, serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmBackend
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import MemoryEventLog

_T = TypeVar("_T")


class Rig:
    """A running gateway and everything behind it."""

    def __init__(self, server: GatewayServer, dispatcher: Dispatcher, events: list[Event]) -> None:
        self.server = server
        self.dispatcher = dispatcher
        self.events = events
        self._changed = asyncio.Event()
        dispatcher.subscribe(lambda _: self._changed.set())
        self.http = aiohttp.ClientSession(server.url)
        self.openai = openai.AsyncOpenAI(
            base_url=server.base_url, api_key="not-checked", max_retries=0
        )

    def of_kind(self, kind: type[_T]) -> list[_T]:
        """Recorded events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[Event], count: int = 1) -> None:
        """Wait until so many events of a kind are recorded."""
        async with asyncio.timeout(5.0):
            while len(self.of_kind(kind)) < count:
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        await self.http.close()
        await self.openai.close()


Start = Callable[..., AbstractAsyncContextManager[Rig]]


def pool_spec(name: str, model: str, cap: int = 8, context_tokens: int = 8192) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.001,
        prefill_s_per_token=0.0001,
        itl_base_s=0.001,
        itl_slope_s=0.0,
        concurrency_cap=cap,
        context_tokens=context_tokens,
        predicted=True,
        source="made up for tests",
    )
    return PoolSpec(
        name=name,
        provider="local",
        region="here",
        arch="x86_64",
        hardware="x86",
        offering="local",
        usd_per_hour=3.6,
        replicas=1,
        llm_curves={model: curve},
    )


@asynccontextmanager
async def start_gateway(
    pool: LlmBackend | None = None,
    settings: GatewaySettings | None = None,
    cap: int = 8,
    model: str = "",
) -> AsyncGenerator[Rig, None]:
    backend = pool if pool is not None else ScriptedLlmPool()
    log = MemoryEventLog()
    recorder = Recorder(WallClock(), log)
    metrics = Metrics()
    recorder.subscribe(metrics.apply)
    spec = pool_spec("lab", model or backend.models()[0], cap)
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": backend}, {})
    chosen = settings if settings is not None else GatewaySettings()
    async with serve(msgspec.structs.replace(chosen, port=0), dispatcher, metrics) as server:
        rig = Rig(server, dispatcher, log.events)
        try:
            yield rig
        finally:
            await rig.close()


@pytest.fixture
def start() -> Start:
    return start_gateway
