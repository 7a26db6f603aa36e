import asyncio
from typing import Any

import pytest
from tests.runtime.conftest import Rig, Start

import steelyard
from steelyard.domain.events import TaskFinished, TaskSubmitted
from steelyard.errors import BudgetExceededError
from steelyard.ledger.ledger import Ledger
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.pools.scripted_tools import ScriptedToolPool, ScriptedToolRun
from steelyard.runtime.context import TaskContext
from steelyard.runtime.runner import TaskLimits, TaskRunner

LIMITS = TaskLimits(deadline_after_s=30.0, budget_usd=0.25)


@steelyard.tool()
def work() -> int:
    return 1


@steelyard.task()
async def add(_: TaskContext, a: int, b: int = 0) -> int:
    return a + b


@steelyard.task()
async def overspend(_: TaskContext) -> None:
    raise BudgetExceededError("step x would exceed the budget")


@steelyard.task()
async def stumble(_: TaskContext) -> None:
    raise ZeroDivisionError("by nothing")


@steelyard.task()
async def work_once(ctx: TaskContext) -> int:
    return await ctx.tool(work)


def _runner(rig: Rig) -> TaskRunner:
    return TaskRunner(rig.dispatcher, ScriptedLlmPool(), "m")


async def test_a_task_that_returns_has_succeeded(start: Start) -> None:
    rig = start()
    outcome = await _runner(rig).run(add, "t", LIMITS, 1, b=2)
    assert (outcome.status, outcome.result, outcome.error) == ("succeeded", 3, "")
    (submitted,) = rig.of_kind(TaskSubmitted)
    assert (submitted.agent, submitted.deadline_s, submitted.budget_usd) == ("add", 1030.0, 0.25)
    (ended,) = rig.of_kind(TaskFinished)
    assert (ended.status, ended.result) == ("succeeded", 3)


async def test_an_error_of_steelyard_is_a_value_with_its_code(start: Start) -> None:
    rig = start()
    outcome = await _runner(rig).run(overspend, "t", LIMITS)
    assert (outcome.status, outcome.error) == ("failed", "step x would exceed the budget")
    (ended,) = rig.of_kind(TaskFinished)
    assert (ended.status, ended.error_code) == ("failed", "budget_exceeded")


async def test_whatever_an_agent_raises_is_a_value(start: Start) -> None:
    rig = start()
    outcome = await _runner(rig).run(stumble, "t", LIMITS)
    assert outcome.status == "failed"
    told = "agent stumble raised ZeroDivisionError: by nothing (test_runner.py:"
    assert outcome.error.startswith(told)
    assert rig.of_kind(TaskFinished)[0].error_code == "task"


async def test_a_cancelled_task_is_recorded_as_such_and_its_step_stops(start: Start) -> None:
    tools = ScriptedToolPool((ScriptedToolRun(before_end=asyncio.Event()),))
    rig = start(tools=tools)
    running = asyncio.create_task(_runner(rig).run(work_once, "t", LIMITS))
    await tools.wait_in_flight(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert rig.of_kind(TaskFinished)[0].status == "cancelled"
    assert rig.outcomes() == [(0, "cancelled")]
    assert tools.in_flight == 0


async def test_the_ledger_of_many_tasks_is_complete(start: Start) -> None:
    rig = start()
    runner = _runner(rig)
    running: list[Any] = [runner.run(work_once, f"t{n}", LIMITS) for n in range(20)]
    await asyncio.gather(*running, runner.run(stumble, "bad", LIMITS))
    ledger = Ledger.of(rig.events)
    assert len(ledger.attempts) == 20
    assert sorted(task.task_id for task in ledger.tasks if not task.met_slo) == ["bad"]
    assert all(task.cost_usd > 0.0 for task in ledger.tasks if task.met_slo)
