"""One embedded engine for all tests that need the real model: loading takes seconds."""

from collections.abc import AsyncIterator

import pytest_asyncio

from steelyard.pools.engine.pool import EmbeddedEnginePool
from steelyard.pools.engine.supervisor import SupervisorLimits


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine_pool() -> AsyncIterator[EmbeddedEnginePool]:
    pool = EmbeddedEnginePool(limits=SupervisorLimits(max_in_flight=40))
    await pool.start()
    yield pool
    await pool.close()
