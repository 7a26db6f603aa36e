"""A store on disk and workers without pools: what most of a durable task needs."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.event_store import EventStore

StartWorker = Callable[..., AbstractAsyncContextManager[Worker]]


@asynccontextmanager
async def _start(
    store: EventStore, *agents: AgentTask[Any, ..., Any], settings: WorkerSettings | None = None
) -> AsyncGenerator[Worker, None]:
    recorder = Recorder(WallClock(), store)
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, {})
    chosen = settings or WorkerSettings(lease_s=1.0, look_s=0.02)
    async with Worker(
        store, dispatcher, (ScriptedLlmPool(), "scripted"), agents, chosen
    ).working() as worker:
        yield worker


@pytest.fixture
def start_worker() -> StartWorker:
    return _start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"
