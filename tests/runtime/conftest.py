"""A dispatcher on a clock that the test moves, in front of scripted pools."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.store.conftest import open_one, postgres, where

from steelyard.domain.events import AttemptFinished, Event, PoolAdded
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmBackend, LlmRequest, ToolBackend, ToolOutcome, ToolRequest
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.pools.scripted_tools import ScriptedToolPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.event_log import MemoryEventLog
from steelyard.store.event_store import EventStore

# The stores of tests/store, for tests of several processes here.
__all__ = ["open_one", "postgres", "where"]

_T = TypeVar("_T")
MODEL = "scripted"
REQUEST = LlmRequest(kind="completion", model=MODEL, prompt="x", max_output_tokens=16)
TOOL_REQUEST = ToolRequest(tool="m:f", arguments={})


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.t_s = 1000.0

    def now_s(self) -> float:
        return self.t_s


class HeldLog(MemoryEventLog):
    """A log in memory whose disk can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Future[None]] | None = None

    def durable(self) -> "Future[None]":
        if self.held is None:
            return super().durable()
        waiter: Future[None] = Future()
        self.held.append(waiter)
        return waiter


class Rig:
    """A dispatcher and everything behind it."""

    def __init__(self, llm: LlmBackend, tools: ToolBackend, specs: tuple[PoolSpec, ...]) -> None:
        self.clock = ManualClock()
        self.log = HeldLog()
        self.recorder = Recorder(self.clock, self.log)
        self.specs = {spec.name: spec for spec in specs}
        for spec in specs:
            self.recorder.record(PoolAdded(t_s=self.clock.t_s, spec=spec))
        self.dispatcher = Dispatcher(
            self.recorder, CheapestFeasible(), {"llm": llm}, {"tools": tools}
        )

    @property
    def events(self) -> list[Event]:
        return self.log.events

    def of_kind(self, kind: type[_T]) -> list[_T]:
        return [event for event in self.log.events if isinstance(event, kind)]

    def outcomes(self) -> list[tuple[int, str]]:
        return [(one.attempt, one.outcome) for one in self.of_kind(AttemptFinished)]

    def load(self) -> tuple[float, float, float]:
        """Running, waiting and predicted work of the whole fleet."""
        view = self.dispatcher.state.view(llm_step("probe"), self.clock.t_s)
        return (
            float(view.running.sum()),
            float(view.waiting.sum()),
            float(view.service_sum_s.sum()),
        )


def llm_step(task_id: str, step_id: int = 0, **values: Any) -> Step:
    call = LlmCall(model=MODEL, input_tokens=50, max_output_tokens=16)
    return Step(task_id=task_id, step_id=step_id, agent="a", name="ask", call=call, **values)


def tool_step(task_id: str, step_id: int = 0, **values: Any) -> Step:
    call = ToolCall(tool="m:f")
    return Step(task_id=task_id, step_id=step_id, agent="a", name="do", call=call, **values)


def llm_spec(cap: int = 8) -> PoolSpec:
    curve = LlmCurve(
        ttft_floor_s=0.01,
        prefill_s_per_token=0.001,
        itl_base_s=0.01,
        itl_slope_s=0.0,
        concurrency_cap=cap,
        context_tokens=8192,
        predicted=True,
        source="made up for tests",
    )
    return _spec("llm", llm_curves={MODEL: curve})


def tool_spec(slots: int = 2) -> PoolSpec:
    curve = ToolCurve(
        relative_speed=2.0,
        cores=1.0,
        memory_bytes=1_000_000,
        start_s=0.0,
        slots=slots,
        predicted=True,
        source="made up for tests",
    )
    return _spec("tools", tool_curve=curve)


def _spec(name: str, **values: Any) -> PoolSpec:
    return PoolSpec(
        name=name,
        provider="local",
        region="here",
        arch="x86_64",
        hardware="x86",
        offering="local",
        usd_per_hour=3.6,
        replicas=1,
        **values,
    )


Start = Callable[..., Rig]


@pytest.fixture
def start() -> Start:
    def make(
        llm: LlmBackend | None = None,
        tools: ToolBackend | None = None,
        *,
        cap: int = 8,
        slots: int = 2,
    ) -> Rig:
        return Rig(
            llm or ScriptedLlmPool(),
            tools or ScriptedToolPool(),
            (llm_spec(cap), tool_spec(slots)),
        )

    return make


class CostlyTools:
    """Every call takes 0.5 s of CPU, at 0.001 USD a second: it costs 0.0005 USD."""

    slots = 8

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, request: ToolRequest) -> ToolOutcome:
        await asyncio.sleep(0)
        return ToolOutcome(result=1, cpu_s=0.5, wall_s=0.5, max_memory_bytes=0)


@asynccontextmanager
async def paid_worker(
    store: EventStore, *agents: AgentTask[Any, ..., Any], settings: WorkerSettings | None = None
) -> AsyncGenerator[Worker, None]:
    """A worker with a pool of costly tools."""
    recorder = Recorder(WallClock(), store)
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=tool_spec(slots=8)))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, {"tools": CostlyTools()})
    chosen = settings or WorkerSettings(look_s=0.02)
    worker = Worker(store, dispatcher, (ScriptedLlmPool(), "none"), agents, chosen)
    async with worker.working():
        yield worker


StartWorker = Callable[..., AbstractAsyncContextManager[Worker]]


@asynccontextmanager
async def _working(
    store: EventStore, *agents: AgentTask[Any, ..., Any], settings: WorkerSettings | None = None
) -> AsyncGenerator[Worker, None]:
    """A worker without pools on a store: its tasks have local steps alone."""
    recorder = Recorder(WallClock(), store)
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {}, {})
    chosen = settings or WorkerSettings(lease_s=1.0, look_s=0.02)
    gateway = (ScriptedLlmPool(), MODEL)
    async with Worker(store, dispatcher, gateway, agents, chosen).working() as worker:
        yield worker


@pytest.fixture
def start_worker() -> StartWorker:
    return _working


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"
