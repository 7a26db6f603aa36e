import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.runtime.conftest import Rig, Start

import steelyard
from steelyard.domain.events import AttemptFinished, StepPlaced
from steelyard.domain.task import ToolCall
from steelyard.errors import PoolProtocolError, PoolUnavailableError
from steelyard.pools.backend import Embeddings
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.pools.scripted_tools import ScriptedToolPool, ScriptedToolRun
from steelyard.runtime.context import Sampling, TaskContext, decode_answer
from steelyard.runtime.runner import TaskLimits, TaskRunner
from steelyard.runtime.transcript import LlmAnswer

MESSAGES = [{"role": "user", "content": "hello"}]
LIMITS = TaskLimits(deadline_after_s=30.0, budget_usd=0.25)


@steelyard.tool(timeout_s=5.0, memory_bytes=77)
def double(number: int) -> int:
    return 2 * number


@steelyard.task(name="agent")
async def ask_once(ctx: TaskContext) -> str:
    answer = await ctx.llm(MESSAGES, step="greet", max_output_tokens=9)
    return answer.text


@steelyard.task(name="agent")
async def double_twice(ctx: TaskContext, number: int) -> list[Any]:
    return [await ctx.tool(double, number), await ctx.tool(double, number=number + 1)]


@steelyard.task(name="agent")
async def double_side_by_side(ctx: TaskContext) -> list[int]:
    first = await ctx.tool(double, 0)
    both = await ctx.gather(ctx.tool(double, 1), ctx.tool(double, 2))
    return [first, *both, await ctx.tool(double, 3)]


@steelyard.task(name="agent")
async def embed_two(ctx: TaskContext) -> list[Any]:
    return list(await ctx.embed(["a", "bcd"], step="index", model="vectors"))


class FlakyEmbeddings(ScriptedLlmPool):
    """Fails once, and keeps the headers that it was sent."""

    def __init__(self) -> None:
        super().__init__(embedding_dimensions=2)
        self.headers: list[Mapping[str, str]] = []

    async def embed(
        self,
        texts: list[str],
        model: str,
        replica: int,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Embeddings:
        self.headers.append(extra_headers or {})
        if len(self.headers) == 1:
            raise PoolUnavailableError("the connection broke")
        return await super().embed(texts, model, replica, extra_headers)


def _runner(rig: Rig, client: ScriptedLlmPool | None = None) -> TaskRunner:
    return TaskRunner(rig.dispatcher, client or ScriptedLlmPool(), "the-model")


async def test_an_llm_step_tells_the_gateway_whose_it_is(start: Start) -> None:
    rig, client = start(), ScriptedLlmPool((ScriptedAnswer(pieces=("hi", "!")),))
    outcome = await _runner(rig, client).run(ask_once, "t-1", LIMITS)
    assert outcome.result == "hi!"
    (request,) = client.requests
    assert (request.kind, request.model, request.messages) == ("chat", "the-model", MESSAGES)
    assert (request.max_output_tokens, request.temperature) == (9, 0.0)
    headers = request.extra_headers
    assert headers["Steelyard-Task"] == "t-1"
    assert headers["Steelyard-Agent"] == "agent"
    assert headers["Steelyard-Step"] == "greet"
    assert headers["Idempotency-Key"] == "t-1/0"
    assert float(headers["Steelyard-Deadline"]) == 30.0
    assert float(headers["Steelyard-Budget-Usd"]) == 0.25


async def test_texts_are_embedded_as_a_step_that_is_tried_again(start: Start) -> None:
    rig, client = start(), FlakyEmbeddings()
    outcome = await _runner(rig, client).run(embed_two, "t-1", LIMITS)
    assert outcome.result == [(1.0, 0.0), (3.0, 0.0)]
    first, second = client.headers
    assert first["Steelyard-Step"] == second["Steelyard-Step"] == "index"
    assert first["Idempotency-Key"] == second["Idempotency-Key"] == "t-1/0"
    assert [one["Steelyard-Journal"].split(" ")[1] for one in client.headers] == ["0", "1"]


async def test_a_drawn_answer_has_its_seed_in_the_question(start: Start) -> None:
    @steelyard.task(name="agent")
    async def draw(ctx: TaskContext, seed: int) -> str:
        sampling = Sampling(temperature=0.7, seed=seed)
        return (await ctx.llm(MESSAGES, step="greet", max_output_tokens=9, sampling=sampling)).text

    rig, client = start(), ScriptedLlmPool()
    for seed in (1, 2):
        await _runner(rig, client).run(draw, f"t-{seed}", LIMITS, seed)
    await _runner(rig, client).run(ask_once, "t-3", LIMITS)
    asked = [(request.temperature, request.seed) for request in client.requests]
    assert asked == [(0.7, 1), (0.7, 2), (0.0, None)]
    prints = [request.extra_headers["Steelyard-Journal"][-16:] for request in client.requests]
    assert len(set(prints)) == 3


async def test_a_task_without_limits_sends_none(start: Start) -> None:
    rig, client = start(), ScriptedLlmPool()
    await _runner(rig, client).run(ask_once, "t", TaskLimits())
    headers = client.requests[0].extra_headers
    assert "Steelyard-Deadline" not in headers
    assert "Steelyard-Budget-Usd" not in headers


async def test_a_tool_step_runs_elsewhere_with_its_arguments_by_name(start: Start) -> None:
    tools = ScriptedToolPool((ScriptedToolRun(result=40), ScriptedToolRun(result=42)))
    rig = start(tools=tools)
    outcome = await _runner(rig).run(double_twice, "t", LIMITS, 20)
    assert outcome.result == [40, 42]
    one, two = tools.requests
    assert one.tool == f"{__name__}:double"
    assert (one.timeout_s, one.memory_bytes) == (5.0, 77)
    assert [one.arguments, two.arguments] == [{"number": 20}, {"number": 21}]
    steps = [event.step for event in rig.of_kind(StepPlaced)]
    assert [(step.step_id, step.name, step.parents) for step in steps] == [
        (0, "double", ()),
        (1, "double", (0,)),
    ]
    assert steps[0].call == ToolCall(tool=one.tool, memory_bytes=77)
    assert (steps[0].agent, steps[0].deadline_s, steps[0].budget_usd) == ("agent", 1030.0, 0.25)
    assert [event.result for event in rig.of_kind(AttemptFinished)] == [40, 42]


async def test_gathered_steps_share_their_parents(start: Start) -> None:
    gate = asyncio.Event()
    gates = (None, gate, gate, None)
    script = (ScriptedToolRun(result=n, before_end=one) for n, one in enumerate(gates))
    tools = ScriptedToolPool(tuple(script))
    rig = start(tools=tools)
    running = asyncio.create_task(_runner(rig).run(double_side_by_side, "t", LIMITS))
    await tools.wait_in_flight(2)
    gate.set()
    outcome = await running
    assert outcome.result == [0, 1, 2, 3]
    steps = [event.step for event in rig.of_kind(StepPlaced)]
    assert [step.parents for step in steps] == [(), (0,), (0,), (1, 2)]


def test_an_answer_that_should_be_json_is_decoded() -> None:
    assert decode_answer(LlmAnswer(text='{"a": [1]}'), "s") == {"a": [1]}
    with pytest.raises(PoolProtocolError, match="step s answered no JSON .* reason length"):
        decode_answer(LlmAnswer(text='{"a": [1', finish_reason="length"), "s")
