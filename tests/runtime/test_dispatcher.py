import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from tests.runtime.conftest import (
    REQUEST,
    TOOL_REQUEST,
    Rig,
    Start,
    llm_step,
    tool_step,
)

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.errors import (
    BudgetExceededError,
    NoFeasiblePoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolUnavailableError,
    TaskError,
    ToolFailedError,
)
from steelyard.perf.cost import attempt_usd
from steelyard.pools.backend import LlmChunk
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.pools.scripted_tools import ScriptedToolPool, ScriptedToolRun
from steelyard.runtime.dispatcher import Dispatcher, Settlement

DOWN = PoolUnavailableError("the replica is down")
Items = list[Decision | LlmChunk | Settlement]


async def _ask(dispatcher: Dispatcher, step_name: str = "t", **values: Any) -> Items:
    step = llm_step(step_name, **values)
    async with aclosing(dispatcher.serve_llm(step, REQUEST)) as items:
        return [item async for item in items]


async def _settle() -> None:
    """Let every task run as far as it can without the clock or the test."""
    for _ in range(20):
        await asyncio.sleep(0)


def _idle(rig: Rig) -> bool:
    return rig.load() == (0.0, 0.0, 0.0)


async def test_an_llm_step_gives_its_decision_its_chunks_and_its_settlement(start: Start) -> None:
    rig = start()
    items = await _ask(rig.dispatcher)
    assert isinstance(items[0], Decision)
    texts = [item.text for item in items if isinstance(item, LlmChunk) and item.text]
    assert texts == ["Hello", " world"]
    assert isinstance(items[-1], Settlement)
    kinds = [type(event) for event in rig.events[2:]]
    assert kinds == [StepPlaced, AttemptStarted, AttemptFinished]
    assert _idle(rig)


async def test_costs_are_those_of_the_one_cost_function(start: Start) -> None:
    rig = start(tools=ScriptedToolPool((ScriptedToolRun(cpu_s=2.0, max_memory_bytes=500_000),)))
    items = await _ask(rig.dispatcher)
    _, _, settled = await rig.dispatcher.serve_tool(tool_step("u"), TOOL_REQUEST)
    llm, tool = rig.of_kind(AttemptFinished)
    assert llm.cost_usd == attempt_usd(rig.specs["llm"], llm_step("t"), llm.usage) > 0.0
    assert tool.cost_usd == attempt_usd(rig.specs["tools"], tool_step("u"), tool.usage) > 0.0
    last = items[-1]
    assert isinstance(last, Settlement)
    assert (last.cost_usd, last.usage, last.attempt) == (llm.cost_usd, llm.usage, 0)
    assert (settled.cost_usd, settled.usage) == (tool.cost_usd, tool.usage)


async def test_what_a_pool_counted_is_recorded_as_measured(start: Start) -> None:
    answer = ScriptedAnswer(pieces=("a", "b", "c"), input_tokens=40, cached_tokens=30)
    rig = start(ScriptedLlmPool((answer,)))
    await _ask(rig.dispatcher)
    (ended,) = rig.of_kind(AttemptFinished)
    usage = ended.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (40, 30, 3)
    assert (usage.counting, usage.cached_counting) == ("measured", "measured")


async def test_a_step_is_retried_when_its_pool_fails_before_the_first_piece(start: Start) -> None:
    rig = start(ScriptedLlmPool((ScriptedAnswer(error=DOWN), ScriptedAnswer())))
    items = await _ask(rig.dispatcher)
    assert rig.outcomes() == [(0, "failed"), (1, "ok")]
    assert sum(isinstance(item, Decision) for item in items) == 2
    last = items[-1]
    assert isinstance(last, Settlement)
    assert last.attempt == 1
    assert rig.of_kind(AttemptFinished)[0].error_code == "pool_unavailable"
    assert _idle(rig)


async def test_a_step_is_not_retried_when_its_caller_has_seen_a_piece(start: Start) -> None:
    rig = start(ScriptedLlmPool((ScriptedAnswer(error=DOWN, pieces_before_error=1),)))
    seen: Items = []
    with pytest.raises(PoolUnavailableError, match="is down"):
        async with aclosing(rig.dispatcher.serve_llm(llm_step("t"), REQUEST)) as items:
            seen = [item async for item in items]
    assert rig.outcomes() == [(0, "failed")]
    assert seen == []
    assert _idle(rig)


async def test_a_step_has_three_attempts(start: Start) -> None:
    rig = start(ScriptedLlmPool((ScriptedAnswer(error=DOWN),)))
    with pytest.raises(PoolUnavailableError):
        await _ask(rig.dispatcher)
    assert rig.outcomes() == [(0, "failed"), (1, "failed"), (2, "failed")]
    assert _idle(rig)


@pytest.mark.parametrize("error", [PoolRejectedError("no"), PoolProtocolError("what?")])
async def test_an_error_that_another_attempt_cannot_help_ends_the_step(
    error: PoolRejectedError, start: Start
) -> None:
    rig = start(ScriptedLlmPool((ScriptedAnswer(error=error),)))
    with pytest.raises(type(error)):
        await _ask(rig.dispatcher)
    assert rig.outcomes() == [(0, "failed")]


async def test_tools_are_retried_by_the_same_rule(start: Start) -> None:
    script = (ScriptedToolRun(error=DOWN), ScriptedToolRun(result=7))
    rig = start(tools=ScriptedToolPool(script))
    _, outcome, settled = await rig.dispatcher.serve_tool(tool_step("t"), TOOL_REQUEST)
    assert (outcome.result, settled.attempt) == (7, 1)
    assert rig.of_kind(AttemptFinished)[1].result == 7
    rig = start(tools=ScriptedToolPool((ScriptedToolRun(error=ToolFailedError("m:f raised")),)))
    with pytest.raises(ToolFailedError):
        await rig.dispatcher.serve_tool(tool_step("t"), TOOL_REQUEST)
    assert rig.outcomes() == [(0, "failed")]
    assert _idle(rig)


async def test_a_step_beyond_its_budget_is_refused_and_recorded(start: Start) -> None:
    rig = start()
    with pytest.raises(BudgetExceededError, match=r"step ask of task t .* budget of 1e-12 USD"):
        await _ask(rig.dispatcher, budget_usd=1e-12)
    (refused,) = rig.of_kind(StepRefused)
    assert refused.refusal.cause == "budget"
    assert not rig.of_kind(StepPlaced)


async def test_a_step_that_must_not_be_late_is_refused_and_recorded(start: Start) -> None:
    rig = start()
    with pytest.raises(NoFeasiblePoolError, match="would miss its deadline"):
        await _ask(rig.dispatcher, deadline_s=1000.001, on_miss="refuse")
    (refused,) = rig.of_kind(StepRefused)
    assert refused.refusal.cause == "deadline"


async def test_a_step_that_no_pool_can_run_is_refused_and_recorded(start: Start) -> None:
    rig = start()
    rig.dispatcher.replica_changed("llm", 0, up=False, reason="test")
    asked = asyncio.create_task(_ask(rig.dispatcher))
    await _settle()
    assert rig.of_kind(StepRefused) == []
    rig.clock.t_s += 100.0
    rig.dispatcher.replica_changed("tools", 0, up=True, reason="wakes whoever waits")
    with pytest.raises(NoFeasiblePoolError, match="cannot run in any pool"):
        await asked
    assert rig.of_kind(StepRefused)[0].refusal.cause == "no_pool"
    assert rig.dispatcher.ready() == {"llm": 0, "tools": 1}
    rig.dispatcher.replica_changed("llm", 0, up=True, reason="test")
    await _ask(rig.dispatcher)
    assert rig.outcomes() == [(0, "ok")]


async def test_a_step_waits_for_a_pool_that_is_down_and_runs_when_it_is_back(start: Start) -> None:
    rig = start()
    rig.dispatcher.replica_changed("llm", 0, up=False, reason="test")
    asked = asyncio.create_task(_ask(rig.dispatcher))
    await _settle()
    assert not asked.done()
    rig.clock.t_s += 5.0
    rig.dispatcher.replica_changed("llm", 0, up=True, reason="test")
    await asked
    assert rig.outcomes() == [(0, "ok")]
    assert rig.of_kind(StepRefused) == []


async def test_a_step_that_is_cancelled_in_the_queue_leaves_no_trace_of_work(start: Start) -> None:
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    rig = start(pool, cap=1)
    first = asyncio.create_task(_ask(rig.dispatcher, "first"))
    await pool.wait_in_flight(1)
    waiting = asyncio.create_task(_ask(rig.dispatcher, "waiting"))
    await _settle()
    assert rig.load()[:2] == (1.0, 1.0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert rig.load()[:2] == (1.0, 0.0)
    (ended,) = rig.of_kind(AttemptFinished)
    assert (ended.task_id, ended.outcome, ended.cost_usd) == ("waiting", "cancelled", 0.0)
    assert (ended.usage.input_tokens, ended.usage.wall_s) == (0, 0.0)
    gate.set()
    await first
    assert len(pool.requests) == 1
    assert _idle(rig)


async def test_a_step_that_is_cancelled_before_its_first_piece_pays_for_no_token(
    start: Start,
) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    rig = start(pool)
    asking = asyncio.create_task(_ask(rig.dispatcher))
    await pool.wait_in_flight(1)
    rig.clock.t_s += 2.0
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    (ended,) = rig.of_kind(AttemptFinished)
    assert (ended.outcome, ended.usage.input_tokens, ended.usage.wall_s) == ("cancelled", 0, 2.0)
    assert ended.usage.counting == "estimated"
    assert (pool.in_flight, pool.cancelled) == (0, 1)
    assert _idle(rig)


async def test_a_step_that_is_closed_in_mid_stream_pays_for_what_it_got(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(pieces=("a", "b", "c", "d")),))
    rig = start(pool)
    got = 0
    async with aclosing(rig.dispatcher.serve_llm(llm_step("t"), REQUEST)) as items:
        async for item in items:
            got += isinstance(item, LlmChunk)
            if got == 2:
                break
    (ended,) = rig.of_kind(AttemptFinished)
    assert (ended.outcome, ended.usage.counting) == ("cancelled", "estimated")
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (50, 2)
    assert ended.cost_usd == attempt_usd(rig.specs["llm"], llm_step("t"), ended.usage) > 0.0
    assert pool.cancelled == 1
    assert _idle(rig)


async def test_a_tool_that_is_cancelled_is_recorded_as_such(start: Start) -> None:
    pool = ScriptedToolPool((ScriptedToolRun(before_end=asyncio.Event()),))
    rig = start(tools=pool)
    running = asyncio.create_task(rig.dispatcher.serve_tool(tool_step("t"), TOOL_REQUEST))
    await pool.wait_in_flight(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rig.outcomes() == [(0, "cancelled")]
    assert pool.cancelled == 1
    assert _idle(rig)


async def test_never_more_steps_run_than_the_cap_allows(start: Start) -> None:
    gate = asyncio.Event()
    pool = ScriptedToolPool((ScriptedToolRun(before_end=gate),))
    rig = start(tools=pool, slots=3)
    running: list[asyncio.Task[object]] = []
    for number in range(40):
        step = tool_step(f"t{number}")
        running.append(asyncio.create_task(rig.dispatcher.serve_tool(step, TOOL_REQUEST)))
        if number % 7 == 0:
            await _settle()
        if number % 5 == 0:
            running[-1].cancel()
    await _settle()
    gate.set()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in ended) == 8
    assert pool.most_in_flight == 3
    assert _idle(rig)


async def test_waiting_steps_start_in_the_order_of_their_latest_start(start: Start) -> None:
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    rig = start(pool, cap=1)
    deadlines = {"none": None, "late": 1050.0, "soon": 1020.0, "never": 2000.0}
    asking = [asyncio.create_task(_ask(rig.dispatcher, "running"))]
    await pool.wait_in_flight(1)
    for name, deadline_s in deadlines.items():
        asking.append(asyncio.create_task(_ask(rig.dispatcher, name, deadline_s=deadline_s)))
        await _settle()
    gate.set()
    await asyncio.gather(*asking)
    started = [event.task_id for event in rig.of_kind(AttemptStarted)]
    assert started == ["running", "soon", "late", "none", "never"]


async def test_a_growing_queue_does_not_make_later_steps_more_urgent(start: Start) -> None:
    # Slack shrinks with the predicted wait; ordered by it, the last to come would start first.
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    rig = start(pool, cap=1)
    asking: list[asyncio.Task[Items]] = []
    for number in range(12):
        deadline_s = 1100.0 + number * 0.01
        asking.append(
            asyncio.create_task(_ask(rig.dispatcher, f"t{number}", deadline_s=deadline_s))
        )
        await _settle()
    gate.set()
    await asyncio.gather(*asking)
    started = [event.task_id for event in rig.of_kind(AttemptStarted)]
    assert started == [f"t{number}" for number in range(12)]


async def test_the_step_that_finds_512_waiting_is_told_when_to_come_back(start: Start) -> None:
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    rig = start(pool, cap=1)
    asking = [asyncio.create_task(_ask(rig.dispatcher, f"t{number}")) for number in range(513)]
    await _settle()
    assert rig.load()[:2] == (1.0, 512.0)
    placed = len(rig.of_kind(StepPlaced))
    # Its deadline is near, so that nobody waits for a place that comes too late.
    with pytest.raises(PoolOverloadedError, match="512 steps waiting for replica 0") as caught:
        await _ask(rig.dispatcher, "one more", deadline_s=1000.05)
    assert caught.value.retry_after_s > 1.0
    assert len(rig.of_kind(StepPlaced)) == placed
    gate.set()
    await asyncio.gather(*asking)
    assert _idle(rig)


async def test_nothing_is_settled_before_it_is_durable(start: Start) -> None:
    rig = start()
    rig.log.held = []
    asking = asyncio.create_task(_ask(rig.dispatcher))
    running = asyncio.create_task(rig.dispatcher.serve_tool(tool_step("u"), TOOL_REQUEST))
    await _settle()
    assert rig.outcomes() == [(0, "ok"), (0, "ok")]
    assert not asking.done()
    assert not running.done()
    for waiter in rig.log.held:
        waiter.set_result(None)
    items = await asking
    assert isinstance(items[-1], Settlement)
    await running


async def test_a_caller_that_leaves_while_its_step_is_made_durable_does_no_harm(
    start: Start,
) -> None:
    rig = start()
    rig.log.held = []
    asking = asyncio.create_task(_ask(rig.dispatcher))
    await _settle()
    assert len(rig.log.held) == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert rig.outcomes() == [(0, "ok")]
    assert _idle(rig)


async def test_a_step_that_is_still_being_served_is_not_served_twice(start: Start) -> None:
    # A client that repeats a request with the same Idempotency-Key while the first one runs.
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    rig = start(pool)
    first = asyncio.create_task(_ask(rig.dispatcher))
    await pool.wait_in_flight(1)
    with pytest.raises(PoolRejectedError, match="step 0 of task t is being served"):
        await _ask(rig.dispatcher)
    gate.set()
    await first
    assert rig.outcomes() == [(0, "ok")]
    await _ask(rig.dispatcher)
    assert _idle(rig)


async def test_the_answer_is_journalled_where_that_is_wanted(start: Start) -> None:
    rig = start()
    for journal in (False, True):
        step = llm_step("t", int(journal))
        async with aclosing(rig.dispatcher.serve_llm(step, REQUEST, journal=journal)) as items:
            async for _ in items:
                pass
    plain, journalled = rig.of_kind(AttemptFinished)
    assert plain.result is None
    assert journalled.result == {
        "text": "Hello world",
        "tool_calls": [],
        "finish_reason": "stop",
    }


async def test_embeddings_are_placed_and_paid_for_like_any_step(start: Start) -> None:
    rig = start(ScriptedLlmPool(embedding_dimensions=3))
    _, vectors, settled = await rig.dispatcher.embed(llm_step("t"), ["four", "x"], "scripted")
    assert vectors.vectors == ((4.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    assert (settled.usage.input_tokens, settled.usage.output_tokens) == (5, 0)
    assert settled.cost_usd > 0.0
    assert _idle(rig)


async def test_tasks_are_recorded_once_with_their_terms(start: Start) -> None:
    rig = start()
    seen: list[object] = []
    rig.dispatcher.subscribe(seen.append)
    rig.dispatcher.open_task("t", "a", 1010.0, 0.5)
    rig.dispatcher.open_task("t", "another", None, None)
    rig.dispatcher.close_task("t", "failed", TaskError("it broke"))
    (submitted,) = rig.of_kind(TaskSubmitted)
    assert (submitted.agent, submitted.deadline_s, submitted.budget_usd) == ("a", 1010.0, 0.5)
    (ended,) = rig.of_kind(TaskFinished)
    assert (ended.status, ended.error_code, ended.error) == ("failed", "task", "it broke")
    assert seen == [submitted, ended]
    assert rig.dispatcher.task_terms("t") is None
    assert rig.dispatcher.models() == ("scripted",)
