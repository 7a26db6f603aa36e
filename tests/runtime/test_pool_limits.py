"""Limits of pools: over processes that share a store, most urgent first."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.runtime.conftest import llm_spec, tool_spec, tool_step

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptStarted, PoolAdded
from steelyard.domain.pool import PoolLimit
from steelyard.domain.task import Step
from steelyard.errors import StoreError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.pool_limits import PoolLimits, agent_gate
from steelyard.runtime.recorder import Recorder
from steelyard.store.sqlite_log import SqliteEventLog


class CountingTools:
    """Counts how many tools run at once, over all pools that share it."""

    slots = 100

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def run(self, request: ToolRequest) -> ToolOutcome:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(20):
            await asyncio.sleep(0)
        self.running -= 1
        return ToolOutcome(result=request.tool, cpu_s=0.0, wall_s=0.0, max_memory_bytes=0)


def _dispatcher(
    store: SqliteEventLog, tools: CountingTools, by_gate: dict[str, PoolLimit]
) -> Dispatcher:
    recorder = Recorder(WallClock(), store)
    for spec in (llm_spec(), tool_spec(slots=100)):
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    limits = PoolLimits(store, by_gate)
    return Dispatcher(recorder, CheapestFeasible(), {}, {"tools": tools}, limits=limits)


async def test_two_processes_together_keep_a_pools_limit(path: Path) -> None:
    tools, limit = CountingTools(), PoolLimit(max_running=3)
    with SqliteEventLog(path) as one, SqliteEventLog(path) as two:
        dispatchers = [_dispatcher(store, tools, {"tools": limit}) for store in (one, two)]

        async def run(number: int) -> None:
            step = tool_step(f"t{number}")
            await dispatchers[number % 2].serve_tool(step, ToolRequest(tool="m:f", arguments={}))

        async with asyncio.timeout(30):
            await asyncio.gather(*(run(number) for number in range(30)))
    assert 1 < tools.most <= 3


async def test_a_step_that_gives_up_waiting_leaves_its_place_to_others(path: Path) -> None:
    with SqliteEventLog(path) as store:
        limits = PoolLimits(store, {"tools": PoolLimit(max_running=1)})
        first, second, third = (tool_step(name) for name in ("a", "b", "c"))
        await asyncio.wait_for(limits.enter(first, _decision(), 0.0), 10)
        waiting = asyncio.create_task(limits.enter(second, _decision(), 0.0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        limits.leave(first, _decision())
        await asyncio.wait_for(limits.enter(third, _decision(), 0.0), 10)
        limits.leave(third, _decision())


async def test_the_most_urgent_step_enters_first(path: Path) -> None:
    with SqliteEventLog(path) as store:
        limits = PoolLimits(store, {"tools": PoolLimit(max_running=1)})
        holder = tool_step("holder")
        await asyncio.wait_for(limits.enter(holder, _decision(), 0.0), 10)
        order: list[str] = []

        async def enter(step: Step, slack_s: float | None) -> None:
            decision = msgspec.structs.replace(_decision(), slack_s=slack_s)
            await limits.enter(step, decision, 0.0)
            order.append(step.task_id)
            limits.leave(step, decision)

        waiting = [
            asyncio.create_task(enter(tool_step(name), slack_s))
            for name, slack_s in (("free", None), ("later", 30.0), ("soon", 1.0))
        ]
        await asyncio.sleep(0)
        limits.leave(holder, _decision())
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
    assert order == ["soon", "later", "free"]


async def test_a_pool_without_a_limit_asks_no_store() -> None:
    await PoolLimits.none().enter(tool_step("t"), _decision(), 0.0)


async def test_a_limit_that_was_taken_away_asks_no_store(path: Path) -> None:
    store = SqliteEventLog(path)
    limits = PoolLimits(store, {"tools": PoolLimit(max_running=1)})
    async with asyncio.timeout(10):
        await limits.enter(tool_step("holder"), _decision(), 0.0)
        waiting = asyncio.create_task(limits.enter(tool_step("waiting"), _decision(), 0.0))
        await asyncio.sleep(0)
        limits.change({})
        await waiting
        assert not limits.any
        store.close()
        await limits.enter(tool_step("later"), _decision(), 0.0)
        limits.change({"tools": PoolLimit(starts=1)})
        assert limits.any


async def test_a_broken_store_is_told_to_whoever_waits(path: Path) -> None:
    store = SqliteEventLog(path)
    limits = PoolLimits(store, {"tools": PoolLimit(max_running=1)})
    store.close()
    with pytest.raises(StoreError):
        await asyncio.wait_for(limits.enter(tool_step("t"), _decision(), 0.0), 10)


async def test_a_step_that_waits_for_its_place_has_not_started(path: Path) -> None:
    tools, limit = CountingTools(), PoolLimit(starts=1, per_s=600.0)
    with SqliteEventLog(path) as store:
        dispatcher = _dispatcher(store, tools, {"tools": limit})
        started: list[str] = []
        dispatcher.subscribe(
            lambda event: (
                started.append(event.task_id) if isinstance(event, AttemptStarted) else None
            )
        )
        request = ToolRequest(tool="m:f", arguments={})
        await asyncio.wait_for(dispatcher.serve_tool(tool_step("a"), request), 10)
        second = asyncio.create_task(dispatcher.serve_tool(tool_step("b"), request))
        while dispatcher.state.view(tool_step("x"), 0.0).waiting.sum() < 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert started == ["a"]


async def test_an_agents_steps_start_at_its_rate_in_all_pools_and_processes(path: Path) -> None:
    tools, limit = CountingTools(), PoolLimit(starts=2, per_s=600.0)
    request = ToolRequest(tool="m:f", arguments={})
    with SqliteEventLog(path) as one, SqliteEventLog(path) as two:
        dispatchers = [_dispatcher(store, tools, {agent_gate("a"): limit}) for store in (one, two)]
        for number in range(2):
            step = tool_step(f"t{number}")
            await asyncio.wait_for(dispatchers[number].serve_tool(step, request), 10)
        third = asyncio.create_task(dispatchers[0].serve_tool(tool_step("t2"), request))
        other = msgspec.structs.replace(tool_step("t3"), agent="b")
        await asyncio.wait_for(dispatchers[0].serve_tool(other, request), 10)
        assert not third.done()
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)


def _decision() -> Decision:
    return Decision(
        pool="tools",
        replica=0,
        predicted_wait_s=0.0,
        predicted_ttft_s=0.0,
        predicted_finish_s=0.0,
        predicted_cached_tokens=0,
        predicted_output_tokens=0.0,
        predicted_cost_usd=0.0,
        bid_usd_per_hour=0.0,
        slack_s=None,
        policy="",
        reason="",
        verdicts=(),
    )
