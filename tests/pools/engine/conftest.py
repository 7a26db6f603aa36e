"""One embedded engine per library for all tests that need the real model: loading takes seconds."""

import importlib.util
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from steelyard.pools.engine.adapter import EngineName, EngineSettings, Precision
from steelyard.pools.engine.pool import EmbeddedEnginePool
from steelyard.pools.engine.supervisor import SupervisorLimits

PACKAGES: dict[EngineName, str] = {"openvino": "openvino_genai", "llamacpp": "xllamacpp"}
_VARIANTS: tuple[tuple[EngineName, Precision], ...] = (
    ("openvino", "native"),
    ("openvino", "int8"),
    ("llamacpp", "native"),
)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=_VARIANTS, ids=" ".join)
async def engine_pool(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedEnginePool]:
    engine: EngineName
    precision: Precision
    engine, precision = request.param
    if importlib.util.find_spec(PACKAGES[engine]) is None:
        pytest.skip(f"{PACKAGES[engine]} is not installed")
    pool = EmbeddedEnginePool(
        settings=EngineSettings(
            adapter=engine,
            precision=precision,
            cache_folder=str(tmp_path_factory.mktemp("cache")),
            max_streams=8,
        ),
        limits=SupervisorLimits(max_in_flight=10),
    )
    await pool.start()
    yield pool
    await pool.close()
