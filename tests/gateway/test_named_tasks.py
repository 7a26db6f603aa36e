"""Tasks that only requests name end with their silence."""

import asyncio

from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.gateway.settings import GatewaySettings
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

BODY = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
SHORT = GatewaySettings(task_idle_s=0.2)


async def ask(rig: Rig, **headers: str) -> int:
    named = {f"Steelyard-{name.replace('_', '-')}": value for name, value in headers.items()}
    async with rig.http.post("/v1/chat/completions", json=BODY, headers=named) as response:
        await response.read()
        return response.status


async def test_a_named_task_is_over_after_its_silence_as_its_last_request_was(
    start: Start,
) -> None:
    async with start(settings=SHORT) as rig:
        assert await ask(rig, Task="run", Deadline="60") == 200
        await rig.wait_for(TaskFinished)
        (finished,) = rig.of_kind(TaskFinished)
        (attempt,) = rig.of_kind(AttemptFinished)
        assert (finished.task_id, finished.status) == ("run", "succeeded")
        # It was over with its last answer, not when somebody noticed.
        assert attempt.t_s <= finished.finished_s < attempt.t_s + 0.2 <= finished.t_s
        assert not rig.dispatcher.state.has_task("run")
        assert rig.dispatcher.task_terms("run") is None
        assert len(rig.dispatcher.named) == 0


async def test_a_task_that_goes_on_after_its_silence_is_opened_anew_and_numbered_on(
    start: Start,
) -> None:
    async with start(settings=SHORT) as rig:
        await ask(rig, Task="run")
        await rig.wait_for(TaskFinished)
        await ask(rig, Task="run")
        assert [one.task_id for one in rig.of_kind(TaskSubmitted)] == ["run", "run"]
        assert [one.step.step_id for one in rig.of_kind(StepPlaced)] == [0, 1]


async def test_a_task_with_a_request_under_way_is_not_silent(start: Start) -> None:
    gate = asyncio.Event()
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=gate), ScriptedAnswer()))
    async with start(pool, settings=SHORT) as rig:
        asking = asyncio.create_task(ask(rig, Task="slow"))
        await pool.wait_in_flight(1)
        await ask(rig, Task="quick")
        await rig.wait_for(TaskFinished)
        assert [one.task_id for one in rig.of_kind(TaskFinished)] == ["quick"]
        gate.set()
        assert await asking == 200
        await rig.wait_for(TaskFinished, 2)


async def test_the_end_of_a_workers_task_is_its_workers_to_tell(start: Start) -> None:
    async with start(settings=SHORT) as rig:
        told = {
            "Steelyard-Task": "durable",
            "Idempotency-Key": "durable/0",
            "Steelyard-Journal": "- 0 0 0123456789abcdef",
        }
        async with rig.http.post("/v1/chat/completions", json=BODY, headers=told) as response:
            assert response.status == 200
        await ask(rig, Task="another")
        await rig.wait_for(TaskFinished)
        assert [one.task_id for one in rig.of_kind(TaskFinished)] == ["another"]
        # Its memory is free all the same.
        assert not rig.dispatcher.state.has_task("durable")


async def test_a_named_task_whose_last_request_was_refused_has_failed(start: Start) -> None:
    async with start(settings=SHORT) as rig:
        assert await ask(rig, Task="poor", Budget_Usd="0") == 402
        await rig.wait_for(TaskFinished)
        (finished,) = rig.of_kind(TaskFinished)
        assert (finished.status, finished.error_code) == ("failed", "budget_exceeded")


async def test_a_client_that_left_last_has_cancelled_its_task(start: Start) -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    async with start(pool, settings=SHORT) as rig:
        asking = asyncio.create_task(ask(rig, Task="left"))
        await pool.wait_in_flight(1)
        asking.cancel()
        await asyncio.wait({asking})
        await rig.wait_for(TaskFinished)
        assert [one.status for one in rig.of_kind(TaskFinished)] == ["cancelled"]


async def test_the_priority_of_a_request_is_its_steps(start: Start) -> None:
    async with start() as rig:
        await ask(rig, Priority="7")
        assert [one.step.priority for one in rig.of_kind(StepPlaced)] == [7]
