"""Supervision of real child processes that hang, break and die on request."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import (
    ConfigError,
    PoolOverloadedError,
    PoolRejectedError,
    PoolUnavailableError,
)
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.frames import Load
from steelyard.pools.engine.supervisor import Flight, ReplicaSupervisor, SupervisorLimits

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_child.py")))
Changes = asyncio.Queue[bool]


@asynccontextmanager
async def supervising(
    model: str = "good", **limits: Any
) -> AsyncGenerator[tuple[ReplicaSupervisor, Changes]]:
    changes: Changes = asyncio.Queue()

    async def watch(replica: int, up: bool) -> None:
        assert replica == 0
        await changes.put(up)

    load = Load(model, 100, EngineSettings())
    supervisor = ReplicaSupervisor(
        0, load, SupervisorLimits(backoff_s=0.01, **limits), watch, COMMAND
    )
    try:
        await supervisor.start()
        yield supervisor, changes
    finally:
        await supervisor.close()


def request(prompt: str, **fields: Any) -> LlmRequest:
    return LlmRequest(kind="completion", model="m", prompt=prompt, **fields)


async def first(flight: Flight) -> object:
    async with asyncio.timeout(20):
        return await flight.inbox.get()


async def test_takes_answers_apart_by_request() -> None:
    async with supervising() as (supervisor, changes):
        assert await changes.get() is True
        flights = [supervisor.submit(request(text)) for text in ("a", "b")]
        for flight, text in zip(flights, ("a", "b"), strict=True):
            chunk = await first(flight)
            assert isinstance(chunk, LlmChunk)
            assert chunk.text == text
            assert await first(flight) is None
        assert supervisor.in_flight == 0


@pytest.mark.parametrize(
    ("prompt", "reason"), [("break", "broke"), ("hang", "no sign of life"), ("rubbish", "rubbish")]
)
async def test_restarts_a_child_that_breaks_hangs_or_talks_rubbish(
    prompt: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervising(stall_s=0.5) as (supervisor, changes):
        assert await changes.get() is True
        pid = supervisor.pid
        flights = [supervisor.submit(request("wait")), supervisor.submit(request(prompt))]
        for flight in flights:
            failure = await first(flight)
            assert isinstance(failure, PoolUnavailableError)
            assert reason in str(failure)
        async with asyncio.timeout(20):
            assert [await changes.get(), await changes.get()] == [False, True]
        assert supervisor.pid != pid
        assert reason in caplog.text
        chunk = await first(supervisor.submit(request("back")))
        assert isinstance(chunk, LlmChunk)


async def test_blames_a_hang_on_the_one_request_with_a_schema() -> None:
    async with supervising(stall_s=0.5) as (supervisor, _):
        others = supervisor.submit(request("wait"))
        blamed = supervisor.submit(request("hang", json_schema={"type": "string"}))
        assert isinstance(await first(blamed), PoolRejectedError)
        assert isinstance(await first(others), PoolUnavailableError)


async def test_refuses_more_requests_than_fit_and_takes_more_after_a_cancel() -> None:
    async with supervising(max_in_flight=2) as (supervisor, _):
        flights = [supervisor.submit(request("wait")) for _ in range(2)]
        with pytest.raises(PoolOverloadedError) as caught:
            supervisor.submit(request("wait"))
        assert caught.value.retry_after_s > 0
        supervisor.release(flights[0])
        assert isinstance(await first(supervisor.submit(request("x"))), LlmChunk)


async def test_says_why_it_cannot_start() -> None:
    with pytest.raises(ConfigError, match="the file is bad"):
        async with supervising("bad"):
            pass
    with pytest.raises(PoolUnavailableError, match="died"):
        async with supervising("die"):
            pass


async def test_closing_fails_requests_in_flight_and_kills_the_child() -> None:
    async with supervising() as (supervisor, _):
        flight = supervisor.submit(request("wait"))
    assert isinstance(await first(flight), PoolUnavailableError)
    assert supervisor.pid is None
    with pytest.raises(PoolUnavailableError):
        supervisor.submit(request("x"))
