"""One attempt at a step: placed, admitted, run in its pool, metered and recorded."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptFinished, AttemptOutcome, Usage
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step
from steelyard.errors import PoolError, PoolUnavailableError
from steelyard.pools.backend import (
    Embeddings,
    LlmBackend,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    ToolBackend,
    ToolOutcome,
    ToolRequest,
)
from steelyard.runtime.admission import Admission, step_cap
from steelyard.runtime.embedding import to_journal
from steelyard.runtime.meter import AttemptMeter
from steelyard.runtime.open_tasks import OpenTasks
from steelyard.runtime.placing import Placing
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.transcript import Transcript

# `error_code` of attempts that were running when their worker died.
WORKER_LOST = "worker_lost"


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished step used and cost; it is on disk by the time this is handed out.

    Attributes:
        usage: What it used.
        cost_usd: What the last attempt cost.
        attempt: Which attempt it was, from 0.
    """

    usage: Usage
    cost_usd: float
    attempt: int


class Attempts:
    """Runs single attempts in pools.

    Args:
        recorder: State and log.
        placing: Decides where steps go.
        tasks: Told which steps were submitted and done.
        pools: Backends of models and of tools, by pool name.
        limits: Places in pools with limits over all processes of the store.
    """

    def __init__(
        self,
        recorder: Recorder,
        placing: Placing,
        tasks: OpenTasks,
        pools: tuple[Mapping[str, LlmBackend], Mapping[str, ToolBackend]],
        limits: PoolLimits,
    ) -> None:
        llm_pools, tool_pools = pools
        self._recorder = recorder
        self._placing = placing
        self._tasks = tasks
        self._llm_pools = dict(llm_pools)
        self._tool_pools = dict(tool_pools)
        self._admission = Admission(recorder)
        self._limits = limits

    async def embed(
        self, step: Step, texts: list[str], model: str, journal: bool
    ) -> tuple[Decision, Embeddings, Settlement]:
        """Place and run an embedding step, once.

        Args:
            step: The step; its call names the model and expects no output tokens.
            texts: What to turn into vectors.
            model: Name of the model.
            journal: Whether the vectors are recorded with the cost.

        Returns:
            Where it ran, the vectors, what it cost.

        Raises:
            PlacementError: The policy refused the step.
            PoolError: The pool failed, or offers no embeddings.
        """
        async with self._attempt(step) as (decision, meter):
            backend = self._llm_pools[decision.pool]
            vectors = await backend.embed(texts, model, decision.replica)
            usage = LlmUsage(
                input_tokens=vectors.input_tokens,
                cached_tokens=0,
                output_tokens=0,
                cached_tokens_measured=True,
            )
            meter.piece(self._recorder.now_s(), usage, has_text=False)
            if journal:
                meter.result = to_journal(vectors)
        return decision, vectors, await self._settle(meter)

    async def llm(
        self, step: Step, request: LlmRequest, journal: bool
    ) -> AsyncGenerator[Decision | LlmChunk | Settlement, None]:
        """One attempt at an LLM step; see `Dispatcher.serve_llm`."""
        transcript = Transcript()
        async with self._attempt(step) as (decision, meter):
            yield decision
            backend = self._llm_pools[decision.pool]
            async with aclosing(backend.complete(request, decision.replica)) as chunks:
                async for chunk in chunks:
                    has_text = bool(chunk.text or chunk.tool_calls)
                    meter.piece(self._recorder.now_s(), chunk.usage, has_text=has_text)
                    if journal:
                        transcript.add(chunk)
                    yield chunk
            if journal:
                meter.result = msgspec.to_builtins(transcript.finish())
        yield await self._settle(meter)

    async def tool(
        self, step: Step, request: ToolRequest
    ) -> tuple[Decision, ToolOutcome, Settlement]:
        """One attempt at a tool step; see `Dispatcher.serve_tool`."""
        async with self._attempt(step) as (decision, meter):
            outcome = await self._tool_pools[decision.pool].run(request)
            meter.tool_done(outcome)
            meter.result = outcome.result
        return decision, outcome, await self._settle(meter)

    @asynccontextmanager
    async def _attempt(self, step: Step) -> AsyncGenerator[tuple[Decision, AttemptMeter], None]:
        """Place the step and hold a place on its replica while the block runs.

        Policy and `StepPlaced` share one moment, with nothing between them, so that a replay
        shows the policy the fleet it saw. Whatever way the block is left, its end is recorded.
        """
        decision, now_s = await self._placing.decide(step)
        self._admission.check_new(step)
        self._admission.check_room(decision)
        self._admission.place(step, decision, now_s)
        spec = self._spec(decision.pool)
        cap = step_cap(spec, step)
        meter = AttemptMeter(step, spec)
        self._tasks.step_submitted(step.task_id, step.step_id, step.parents)
        outcome: AttemptOutcome = "cancelled"
        failure: PoolError | None = None
        try:
            if step.fence is not None:
                # The lease is checked, and the attempt known to a later worker, before it runs.
                await self._recorder.durable(step.task_id, step.fence)
            await self._limits.enter(step, decision, self._recorder.now_s())
            await self._admission.enter(step, decision, cap)
            meter.start(self._recorder.now_s())
            yield decision, meter
            outcome = "ok"
        except PoolError as error:
            outcome, failure = "failed", error
            raise
        finally:
            ended = meter.finish(self._recorder.now_s(), outcome, failure)
            self._admission.leave(ended, decision, cap, step.fence)
            self._limits.leave(step, decision)
            if outcome == "ok":
                self._tasks.step_done(step.task_id, step.step_id)

    async def _settle(self, meter: AttemptMeter) -> Settlement:
        event = meter.finished
        await self._recorder.durable(event.task_id, meter.fence)
        return Settlement(usage=event.usage, cost_usd=event.cost_usd, attempt=event.attempt)

    def _spec(self, pool: str) -> PoolSpec:
        for spec in self._recorder.state.pools:
            if spec.name == pool:
                return spec
        raise PoolUnavailableError(f"pool {pool} left the fleet; the step can be placed again")


def lost_attempt(t_s: float, task_id: str, step_id: int, attempt: int) -> AttemptFinished:
    """The end of an attempt whose worker is gone: nobody knows how it ended, or what it used."""
    return AttemptFinished(
        t_s=t_s,
        task_id=task_id,
        step_id=step_id,
        attempt=attempt,
        outcome="cancelled",
        usage=Usage(),
        cost_usd=0.0,
        error_code=WORKER_LOST,
        error="its worker died or lost the task",
    )
