"""The real embedding model in a child process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from tests.pools.engine.reference import TEXTS, reference_vectors

from steelyard.errors import PoolRejectedError, PoolUnavailableError
from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.embedding_pool import EmbeddingPool
from steelyard.pools.engine.supervisor import SupervisorLimits

MODEL = "all-minilm-l6-v2"

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[EmbeddingPool]:
    pool = EmbeddingPool(limits=SupervisorLimits(backoff_s=0.01))
    await pool.start()
    yield pool
    await pool.close()


async def test_concurrent_requests_get_their_own_vectors(pool: EmbeddingPool) -> None:
    answers = await asyncio.gather(*(pool.embed([text], MODEL, 0) for text in TEXTS))
    found = np.array([answer.vectors[0] for answer in answers])
    assert (found * reference_vectors()).sum(axis=1).min() > 0.999
    assert pool.in_flight(0) == 0


async def test_tokens_are_counted(pool: EmbeddingPool) -> None:
    one = await pool.embed(["hello"], MODEL, 0)
    assert one.input_tokens == 3
    many = await pool.embed(["hello"] * 5, MODEL, 0)
    assert (many.input_tokens, len(many.vectors)) == (15, 5)


async def test_what_it_cannot_do_is_rejected(pool: EmbeddingPool) -> None:
    with pytest.raises(PoolRejectedError, match=r"takes 256.*Split"):
        await pool.embed(["word " * 300], MODEL, 0)
    with pytest.raises(PoolRejectedError, match="not 'other'"):
        await pool.embed(["hello"], "other", 0)
    with pytest.raises(PoolRejectedError, match="no text"):
        await pool.embed([], MODEL, 0)
    with pytest.raises(PoolRejectedError, match="generates no text"):
        await anext(pool.complete(LlmRequest(kind="chat", model=MODEL), 0))


async def test_a_cancelled_request_leaves_nothing_behind(pool: EmbeddingPool) -> None:
    asking = asyncio.create_task(pool.embed(list(TEXTS) * 20, MODEL, 0))
    await asyncio.sleep(0)
    assert pool.in_flight(0) == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert pool.in_flight(0) == 0
    assert (await pool.embed(["hello"], MODEL, 0)).input_tokens == 3


async def test_a_killed_child_is_started_again() -> None:
    came_back = asyncio.Event()
    changes: list[bool] = []

    async def watch(replica: int, up: bool) -> None:
        assert replica == 0
        changes.append(up)
        if changes.count(True) == 2:
            came_back.set()

    pool = EmbeddingPool(limits=SupervisorLimits(backoff_s=0.01))
    await pool.start(watch)
    try:
        pid = pool.pid(0)
        assert pid is not None
        asking = asyncio.create_task(pool.embed(list(TEXTS) * 20, MODEL, 0))
        await asyncio.sleep(0)
        assert pool.in_flight(0) == 1
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PoolUnavailableError, match="died"):
            await asking
        await asyncio.wait_for(came_back.wait(), 30)
        assert pool.is_up(0)
        assert (await pool.embed(["hello"], MODEL, 0)).input_tokens == 3
        assert changes == [True, False, True]
    finally:
        await pool.close()
