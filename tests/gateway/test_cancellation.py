"""A client that leaves frees its place at once, whenever it leaves."""

import asyncio
from typing import Any

import pytest
from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


async def _post(rig: Rig, stream: bool, seen: asyncio.Event) -> None:
    async with rig.http.post("/v1/chat/completions", json={**BODY, "stream": stream}) as response:
        async for _ in response.content:
            seen.set()


async def _leave(pool: ScriptedLlmPool, rig: Rig, request: "asyncio.Task[None]") -> None:
    request.cancel()
    async with asyncio.timeout(5.0):
        await asyncio.gather(request, return_exceptions=True)
        await pool.wait_in_flight(0)
    await rig.wait_for(TaskFinished)
    assert pool.cancelled == 1
    assert [event.outcome for event in rig.of_kind(AttemptFinished)] == ["cancelled"]
    assert [event.status for event in rig.of_kind(TaskFinished)] == ["cancelled"]


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_token_cancels_the_work(start: Start, stream: bool) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    async with start(pool) as rig:
        request = asyncio.create_task(_post(rig, stream, asyncio.Event()))
        await pool.wait_in_flight(1)
        await _leave(pool, rig, request)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_after_the_first_token_cancels_the_work(start: Start, stream: bool) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_each=asyncio.Event()),))
    async with start(pool) as rig:
        seen = asyncio.Event()
        request = asyncio.create_task(_post(rig, stream, seen))
        await pool.wait_in_flight(1)
        if stream:
            await seen.wait()
        await _leave(pool, rig, request)


async def test_leaving_the_queue_frees_the_place_in_it(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    async with start(pool, cap=1) as rig:
        first = asyncio.create_task(_post(rig, False, asyncio.Event()))
        await pool.wait_in_flight(1)
        second = asyncio.create_task(_post(rig, False, asyncio.Event()))
        await rig.wait_for(StepPlaced, 2)
        assert 'num_requests_waiting{pool="lab"} 1' in await _metrics(rig)
        second.cancel()
        await rig.wait_for(AttemptFinished)
        assert 'num_requests_waiting{pool="lab"} 0' in await _metrics(rig)
        assert pool.in_flight == 1
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)


async def test_a_client_that_left_is_counted_as_499(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    async with start(pool) as rig:
        request = asyncio.create_task(_post(rig, False, asyncio.Event()))
        await pool.wait_in_flight(1)
        await _leave(pool, rig, request)
        assert 'path="/v1/chat/completions",status="499"} 1' in await _metrics(rig)


async def _metrics(rig: Rig) -> str:
    async with rig.http.get("/metrics") as response:
        return await response.text()
