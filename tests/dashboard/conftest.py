"""A real gateway with its dashboard, over a store in a file."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.dashboard.store_of_tasks import MODEL, SPECS

from steelyard.dashboard.mount import LazyDashboard
from steelyard.dashboard.sources import Sources
from steelyard.domain.events import PoolAdded
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.server import GatewayServer, serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmBackend
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store
from steelyard.store.reader import StoreAddress

HERE = {"Sec-Fetch-Site": "same-origin"}


class Rig:
    """A running gateway with its dashboard."""

    def __init__(self, server: GatewayServer, dispatcher: Dispatcher, store: EventStore) -> None:
        self.server = server
        self.dispatcher = dispatcher
        self.store = store
        self.http = aiohttp.ClientSession(server.url, cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def page(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        async with self.http.get(path) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return text


Start = Callable[..., AbstractAsyncContextManager[Rig]]


@asynccontextmanager
async def start_dashboard(
    path: Path, settings: GatewaySettings | None = None, plan: Path | None = None
) -> AsyncGenerator[Rig, None]:
    with closing(open_store(path)) as store:
        recorder = Recorder(WallClock(), store)
        metrics = Metrics()
        recorder.subscribe(metrics.apply)
        pools: dict[str, LlmBackend] = {}
        for spec in SPECS:
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
            if spec.llm_curves:
                pools[spec.name] = ScriptedLlmPool(model=MODEL)
        dispatcher = Dispatcher(recorder, CheapestFeasible(), pools, {})
        address = StoreAddress(where=str(path))
        pages = LazyDashboard(
            Sources(dispatcher=dispatcher, store=store, address=address, plan=plan)
        )
        chosen = msgspec.structs.replace(settings or GatewaySettings(), port=0)
        async with serve(chosen, dispatcher, metrics, store=store, pages=pages.attach) as server:
            rig = Rig(server, dispatcher, store)
            try:
                yield rig
            finally:
                await rig.http.close()
                await pages.aclose()


@pytest.fixture
def start() -> Start:
    return start_dashboard
