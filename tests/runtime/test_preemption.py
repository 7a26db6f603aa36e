"""A deadline or a cancellation stops the step that runs, all the way to the hardware."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import MODEL, llm_spec, tool_spec

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptFinished, PoolAdded, SignalSent, StepPlaced
from steelyard.errors import PoolOverloadedError
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmChunk, ReadFlow, RelayedAnswer, RelayRequest
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.pools.tools import ProcessToolPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import AgentTask, task, tool
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.sqlite_log import SqliteEventLog, read_events

ROOT = Path(__file__).parents[2]


@tool(timeout_s=600.0)
def hang() -> None:
    """Never ends."""
    time.sleep(600.0)


@task(name="asks")
async def asks(ctx: TaskContext) -> str:
    answer = await ctx.llm([{"role": "user", "content": "?"}], step="ask", max_output_tokens=5)
    return answer.text


@task(name="uses")
async def uses(ctx: TaskContext) -> None:
    await ctx.tool(hang)


class Bench:
    """A store, a gateway, pools and a worker."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        worker: Worker,
        llm: ScriptedLlmPool,
        tools: ProcessToolPool,
    ) -> None:
        self.dispatcher = dispatcher
        self.worker = worker
        self.llm = llm
        self.tools = tools


@asynccontextmanager
async def _bench(
    store: SqliteEventLog, llm: ScriptedLlmPool, *more: AgentTask[Any, ..., Any]
) -> AsyncGenerator[Bench, None]:
    recorder = Recorder(WallClock(), store)
    for spec in (llm_spec(), tool_spec()):
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    tools = ProcessToolPool(slots=1, python_paths=(str(ROOT),))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {"llm": llm}, {"tools": tools})
    await tools.start()
    async with serve(GatewaySettings(port=0), dispatcher) as server:
        client = OpenAiEndpointPool([server.base_url], [MODEL])
        await client.start()
        agents: tuple[AgentTask[Any, ..., Any], ...] = (asks, uses, *more)
        settings = WorkerSettings(look_s=0.02)
        worker = Worker(store, dispatcher, (client, MODEL), agents, settings)
        try:
            async with worker.working():
                yield Bench(dispatcher, worker, llm, tools)
        finally:
            await client.close()
            await tools.close()


def _silent() -> ScriptedLlmPool:
    return ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))


async def test_a_deadline_cancels_the_llm_call_upstream(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _bench(store, _silent()) as bench:
            await bench.worker.submit(asks, "t", TaskLimits(deadline_after_s=0.3), {})
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
            await asyncio.wait_for(bench.llm.wait_in_flight(0), 10)
            assert bench.llm.cancelled == 1
    assert (ended.status, ended.error_code) == ("failed", "deadline_exceeded")


async def test_a_deadline_kills_the_tools_process(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _bench(store, _silent()) as bench:
            pids = bench.tools.pids()
            await bench.worker.submit(uses, "t", TaskLimits(deadline_after_s=0.5), {})
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
            assert ended.error_code == "deadline_exceeded"
            assert not set(pids) & set(bench.tools.pids())
    ends = [event for event in read_events(path) if isinstance(event, AttemptFinished)]
    assert [end.outcome for end in ends] == ["cancelled"]


@pytest.mark.parametrize("agent", [asks, uses])
async def test_a_cancellation_from_elsewhere_stops_the_running_step(
    path: Path, agent: AgentTask[Any, ..., Any]
) -> None:
    with SqliteEventLog(path) as store, SqliteEventLog(path) as elsewhere:
        async with _bench(store, _silent()) as bench:
            pids = bench.tools.pids()
            await bench.worker.submit(agent, "t", TaskLimits(), {})
            async with asyncio.timeout(10):
                while not any(isinstance(e, StepPlaced) for e in read_events(path)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert await asyncio.wrap_future(elsewhere.cancel("t", 0.0))
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
            await asyncio.wait_for(bench.llm.wait_in_flight(0), 10)
            assert ended.status == "cancelled"
            if agent is uses:
                assert not set(pids) & set(bench.tools.pids())


class _Said:
    """Takes an answer."""

    begun = False
    decision: Decision | None = None
    text = ""

    def placed(self, decision: Decision) -> None:
        self.decision = decision

    async def sets_aside(self) -> bool:
        return False

    def flows(self, flow: ReadFlow | None) -> None:
        pass

    def events(self, data: bytes, tokens: int) -> None:
        raise AssertionError

    async def chunk(self, chunk: LlmChunk) -> None:
        self.text += chunk.text

    def relayed(self, answer: RelayedAnswer) -> None:
        raise AssertionError


async def test_an_answer_in_the_log_is_returned_without_asking_again(path: Path) -> None:
    with SqliteEventLog(path) as store:
        async with _bench(store, ScriptedLlmPool()) as bench:
            await bench.worker.submit(asks, "t", TaskLimits(), {})
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
            dispatcher = bench.dispatcher
            placed = next(e for e in read_events(path) if isinstance(e, StepPlaced))
            request = bench.llm.requests[0]
            asked = RelayRequest(request=request, body=b"", stream=False)
            target = _Said()
            told = await dispatcher.relay_journalled(placed.step, asked, target)
            assert len(bench.llm.requests) == 1
    assert ended.result == "Hello world"
    assert target.decision == placed.decision
    assert target.text == "Hello world"
    assert told.usage.output_tokens == 2


async def test_a_deadline_is_not_exceeded_by_waiting_to_try_again(path: Path) -> None:
    busy = ScriptedAnswer(error=PoolOverloadedError("full", retry_after_s=600.0))
    with SqliteEventLog(path) as store:
        async with _bench(store, ScriptedLlmPool((busy,))) as bench:
            await bench.worker.submit(asks, "t", TaskLimits(deadline_after_s=30.0), {})
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
    assert (ended.status, ended.error_code) == ("failed", "pool_overloaded")


async def test_a_budget_refuses_the_step_before_it_is_spent_and_wrap_up_makes_do(
    path: Path,
) -> None:
    async def partial(ctx: TaskContext) -> list[Any]:
        return [step.result for step in ctx.finished_steps()]

    @task(name="poor", wrap_up=partial)
    async def poor(ctx: TaskContext) -> str:
        await ctx.step(lambda: "kept")
        answer = await ctx.llm([{"role": "user", "content": "?"}], step="ask", max_output_tokens=5)
        return answer.text

    with SqliteEventLog(path) as store:
        async with _bench(store, ScriptedLlmPool(), poor) as bench:
            await bench.worker.submit(poor, "t", TaskLimits(budget_usd=1e-9), {})
            ended = await asyncio.wait_for(bench.worker.result("t"), 10)
            assert bench.llm.requests == []
    assert (ended.status, ended.wrapped_up) == ("succeeded", True)
    assert (ended.result, ended.error_code) == (["kept"], "budget_exceeded")


async def test_what_was_spent_before_a_restart_counts_against_the_budget(path: Path) -> None:
    @task(name="spends")
    async def spends(ctx: TaskContext, asks: int) -> int:
        for number in range(asks):
            messages = [{"role": "user", "content": str(number)}]
            await ctx.llm(messages, step="ask", max_output_tokens=5)
            await ctx.signal("on")
        return asks

    on = SignalSent(t_s=0.0, task_id="t", name="on")
    with SqliteEventLog(path) as store:
        async with _bench(store, ScriptedLlmPool(), spends) as bench:
            await bench.worker.submit(spends, "t", TaskLimits(budget_usd=6e-5), {"asks": 50})
            async with asyncio.timeout(10):
                while not any(isinstance(e, AttemptFinished) for e in read_events(path)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        for _ in range(50):
            store.append(on)
        async with _bench(store, ScriptedLlmPool(), spends) as bench:
            ended = await asyncio.wait_for(bench.worker.result("t"), 20)
            asked = len(bench.llm.requests)
    assert (ended.status, ended.error_code) == ("failed", "budget_exceeded")
    costs = [e.cost_usd for e in read_events(path) if isinstance(e, AttemptFinished)]
    assert len(costs) == asked + 1
    assert sum(costs) <= 6e-5
