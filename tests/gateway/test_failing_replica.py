"""One replica of an endpoint fails always: no client learns of it, on either way of a request."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.gateway.conftest import pool_spec
from tests.gateway.raw_upstream import WHOLE, Call, Script, raw_upstream, whole

from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepPlaced
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.sqlite_log import SqliteEventLog, read_events

BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
REQUESTS = 100


async def answer(call: Call) -> None:
    await call.send(whole(json.dumps(WHOLE).encode()))


async def break_(call: Call) -> None:
    await call.send(BROKEN)


async def hang_up(call: Call) -> None:
    call.writer.close()


@asynccontextmanager
async def gateway(
    urls: Sequence[str], path: Path
) -> AsyncGenerator[tuple[aiohttp.ClientSession, Dispatcher], None]:
    """A gateway in front of one pool with a replica per URL, its log on disk."""
    pool = OpenAiEndpointPool(list(urls), ["m"])
    await pool.start()
    with SqliteEventLog(path) as log:
        recorder = Recorder(WallClock(), log)
        spec = msgspec.structs.replace(pool_spec("lab", "m"), replicas=len(urls))
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool}, {})
        async with (
            serve(GatewaySettings(port=0), dispatcher) as server,
            aiohttp.ClientSession(server.url) as http,
        ):
            yield http, dispatcher
    await pool.close()


async def ask(http: aiohttp.ClientSession, headers: dict[str, str], number: int) -> int:
    # Another prompt each time: a cached one would draw all of them to one replica.
    body = {"model": "m", "messages": [{"role": "user", "content": f"Hi {number}"}]}
    async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status


def second_attempts(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Replicas of first attempts that failed, and of the attempts after them."""
    placed = {
        (one.step.task_id, one.step.step_id, one.step.attempt): one.decision.replica
        for one in events
        if isinstance(one, StepPlaced)
    }
    failed = [one for one in events if isinstance(one, AttemptFinished) and one.outcome != "ok"]
    return [
        (
            placed[(one.task_id, one.step_id, one.attempt)],
            placed[(one.task_id, one.step_id, one.attempt + 1)],
        )
        for one in failed
    ]


@pytest.mark.parametrize("script", [break_, hang_up])
@pytest.mark.parametrize("headers", [{}, {"Steelyard-Agent": "a"}], ids=["short", "ordinary"])
async def test_no_client_sees_an_error_and_the_second_attempt_is_on_the_other_replica(
    headers: dict[str, str], script: Script, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    async with (
        raw_upstream(answer) as (bad, bad_url),
        raw_upstream(answer) as (good, good_url),
        gateway([bad_url, good_url], path) as (http, dispatcher),
    ):
        # Both get a free connection, without which a request does not go the short way.
        warm = 8
        assert {*await asyncio.gather(*(ask(http, headers, -n) for n in range(warm)))} == {200}
        assert bad.calls
        assert good.calls
        bad.script = script
        some = asyncio.Semaphore(4)

        async def one(number: int) -> int:
            async with some:
                return await ask(http, headers, number)

        statuses = await asyncio.gather(*(one(number) for number in range(1, REQUESTS + 1)))
        assert statuses == [200] * REQUESTS
        assert dispatcher.under_way.get("lab", 0) == 0
    events = list(read_events(path))
    pairs = second_attempts(events)
    assert pairs
    assert set(pairs) == {(0, 1)}
    assert warm + REQUESTS == sum(
        isinstance(one, AttemptFinished) and one.outcome == "ok" for one in events
    )
    # After a few failures it is left alone, though it looks idle.
    assert len(pairs) < REQUESTS / 4
    assert [one.step for one in replay(events, CheapestFeasible()) if not one.same] == []
