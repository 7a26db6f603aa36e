"""The database behind a gateway goes away and comes back: clients are told, and nothing is lost."""

import asyncio
from typing import Any

import aiohttp
import pytest
from tests.gateway.conftest import pool_spec
from tests.store.postgres_server import PostgresServer

from steelyard.domain.events import AttemptFinished, PoolAdded
from steelyard.gateway import app, control_plane
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_store import read_store
from steelyard.store.open_store import open_store

_BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


async def _ask(http: aiohttp.ClientSession) -> tuple[int, str, str]:
    async with http.post("/v1/chat/completions", json=_BODY) as answer:
        told = await answer.json()
        code = told["error"]["code"] if answer.status != 200 else ""
        return answer.status, code, answer.headers.get("Retry-After", "")


async def _ready(http: aiohttp.ClientSession, wanted: int) -> None:
    while True:
        async with http.get("/readyz") as answer:
            if answer.status == wanted:
                return
        await asyncio.sleep(0.02)


async def test_what_came_before_waits_and_what_comes_then_is_told_to_come_back(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "AWAY_S", 0.1)
    monkeypatch.setattr(control_plane, "AWAY_S", 0.1)
    with open_store(postgres.new_database()) as store:
        recorder = Recorder(WallClock(), store)
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec("lab", "scripted")))
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": ScriptedLlmPool()}, {})
        settings = GatewaySettings(port=0)
        async with (
            asyncio.timeout(60.0),
            serve(settings, dispatcher, store=store) as server,
            aiohttp.ClientSession(server.url) as http,
        ):
            assert (await _ask(http))[0] == 200
            postgres.stop()
            waits = asyncio.create_task(_ask(http))
            await _ready(http, 503)
            assert await _ask(http) == (503, "store_busy", "2")
            assert not waits.done()
            await asyncio.to_thread(postgres.start)
            assert (await waits)[0] == 200
            await _ready(http, 200)
            assert (await _ask(http))[0] == 200
        served = [event for event in read_store(store) if isinstance(event, AttemptFinished)]
        assert [event.outcome for event in served] == ["ok"] * 3
