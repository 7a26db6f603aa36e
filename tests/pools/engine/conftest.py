"""One embedded engine per library for all tests that need the real model: loading takes seconds."""

import importlib.util
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from steelyard.pools.engine.adapter import EngineName, EngineSettings
from steelyard.pools.engine.pool import EmbeddedEnginePool
from steelyard.pools.engine.supervisor import SupervisorLimits

PACKAGES: dict[EngineName, str] = {"openvino": "openvino_genai", "llamacpp": "xllamacpp"}


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=PACKAGES)
async def engine_pool(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedEnginePool]:
    engine: EngineName = request.param
    if importlib.util.find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"{PACKAGES[engine]} is not installed")
    pool = EmbeddedEnginePool(
        settings=EngineSettings(adapter=engine, max_streams=8),
        limits=SupervisorLimits(max_in_flight=10),
    )
    await pool.start()
    yield pool
    await pool.close()
