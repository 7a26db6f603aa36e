"""A request leaves nothing for the garbage collector, which looks seldom here, however it ends."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop
from tests.gateway.conftest import pool_spec
from tests.gateway.raw_upstream import (
    STREAM,
    WHOLE,
    Call,
    RawUpstream,
    Script,
    chunk,
    piece,
    raw_upstream,
    whole,
)

from steelyard.domain.events import PoolAdded
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import MemoryEventLog

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
NAMED = {"Steelyard-Task": "t"}


async def answer(call: Call) -> None:
    await call.send(whole(json.dumps(WHOLE).encode()))


async def break_(call: Call) -> None:
    await call.send(b"HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\n{}")


async def hang_up(call: Call) -> None:
    call.writer.close()


async def break_off(call: Call) -> None:
    await call.send(STREAM + chunk(piece("Hi")))
    call.writer.close()


async def wait(call: Call) -> None:
    await call.left.wait()


@asynccontextmanager
async def gateway() -> AsyncGenerator[tuple[aiohttp.ClientSession, RawUpstream]]:
    """A gateway that waits for no pool to come back."""
    async with raw_upstream(answer) as (upstream, url):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        recorder = Recorder(WallClock(), MemoryEventLog())
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec("lab", "m")))
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool}, {}, 0.0)
        async with (
            serve(GatewaySettings(port=0), dispatcher) as server,
            aiohttp.ClientSession(server.url) as http,
        ):
            yield http, upstream
        await pool.close()


async def ask(http: aiohttp.ClientSession, body: dict[str, Any], headers: dict[str, str]) -> None:
    async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()


async def leave(
    http: aiohttp.ClientSession, upstream: RawUpstream, headers: dict[str, str]
) -> None:
    upstream.came.clear()
    asked = asyncio.ensure_future(ask(http, ASK, headers))
    await asyncio.wait_for(upstream.came.wait(), 5.0)
    asked.cancel()
    await asyncio.wait_for(upstream.calls[-1].left.wait(), 5.0)


async def go_wrong(
    http: aiohttp.ClientSession, upstream: RawUpstream, script: Script, headers: dict[str, str]
) -> None:
    # On a connection that is free, and on new ones.
    upstream.script = answer
    await ask(http, ASK, headers)
    upstream.script = script
    if script is wait:
        await asyncio.gather(*(leave(http, upstream, headers) for _ in range(2)))
    else:
        await asyncio.gather(*(ask(http, {**ASK, "stream": True}, headers) for _ in range(2)))
    upstream.script = answer
    await ask(http, {**ASK, "model": "none"}, headers)
    await ask(http, {"model": "m"}, headers)
    await ask(http, {**ASK}, {**headers, "Content-Encoding": "gzip"})


def ours(objects: list[Any]) -> Counter[str]:
    kinds = (type(one) for one in objects)
    return Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith("steelyard."))


@pytest.mark.parametrize("headers", [{}, NAMED], ids=["short", "ordinary"])
@pytest.mark.parametrize("script", [answer, break_, hang_up, break_off, wait])
def test_a_request_leaves_no_cycles(script: Script, headers: dict[str, str]) -> None:
    async def run() -> Counter[str]:
        async with gateway() as (http, upstream):
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await go_wrong(http, upstream, script, headers)
                await asyncio.sleep(0)
                gc.collect()
                return ours(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == {}
