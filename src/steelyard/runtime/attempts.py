"""Attempts at steps: each is placed, run in its pool, metered and recorded."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptFinished, Usage
from steelyard.domain.task import Step
from steelyard.errors import PoolError
from steelyard.pools.backend import (
    Embeddings,
    LlmBackend,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    QuickRelayBackend,
    RelayBackend,
    RelayRequest,
    ToolBackend,
    ToolOutcome,
    ToolRequest,
)
from steelyard.pools.elastic import PlacedToolBackend
from steelyard.runtime.admission import Admission
from steelyard.runtime.attempt import Attempt, AttemptGate
from steelyard.runtime.embedding import to_journal
from steelyard.runtime.meter import AttemptMeter
from steelyard.runtime.open_tasks import OpenTasks
from steelyard.runtime.placing import Placing
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.relaying import AnswerTarget, MeteredTarget
from steelyard.runtime.settlement import Settlement
from steelyard.runtime.transcript import Transcript
from steelyard.runtime.whole_requests import WholeRequests

# `error_code` of attempts that were running when their worker died.
WORKER_LOST = "worker_lost"


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
        self._llm_pools = dict(llm_pools)
        self._tool_pools = dict(tool_pools)
        self._relays = {
            name: pool for name, pool in self._llm_pools.items() if isinstance(pool, RelayBackend)
        }
        self._gate = AttemptGate(recorder, placing, tasks, limits)
        quick = {
            name: pool
            for name, pool in self._llm_pools.items()
            if isinstance(pool, QuickRelayBackend)
        }
        self.whole = WholeRequests(recorder, self._gate, tasks, quick)

    @property
    def admission(self) -> Admission:
        """Lets steps start on replicas."""
        return self._gate.admission

    @property
    def llm_pools(self) -> Mapping[str, LlmBackend]:
        """Backends of models as they are now, by pool name."""
        return self._llm_pools

    def put_pool(self, name: str, pool: LlmBackend | ToolBackend) -> None:
        """Run later attempts of a pool in this backend."""
        self.drop_pool(name)
        if isinstance(pool, ToolBackend):
            self._tool_pools[name] = pool
            return
        self._llm_pools[name] = pool
        self._relays = {
            name: pool for name, pool in self._llm_pools.items() if isinstance(pool, RelayBackend)
        }
        self.whole.put_pool(name, pool if isinstance(pool, QuickRelayBackend) else None)

    def drop_pool(self, name: str) -> None:
        """Forget a pool's backend; attempts that run keep theirs."""
        self._llm_pools.pop(name, None)
        self._tool_pools.pop(name, None)
        self._relays.pop(name, None)
        self.whole.put_pool(name, None)

    async def embed(
        self,
        step: Step,
        texts: list[str],
        model: str,
        journal: bool,
        starts: Callable[[], None],
    ) -> tuple[Decision, Embeddings, Settlement]:
        """Place and run an embedding step, once.

        Args:
            step: The step; its call names the model and expects no output tokens.
            texts: What to turn into vectors.
            model: Name of the model.
            journal: Whether the vectors are recorded with the cost.
            starts: Called when it starts.

        Returns:
            Where it ran, the vectors, what it cost.

        Raises:
            PlacementError: The policy refused the step.
            PoolError: The pool failed, or offers no embeddings.
        """
        async with self._attempt(step) as (decision, meter):
            starts()
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
            backend = self._tool_pools[decision.pool]
            if isinstance(backend, PlacedToolBackend):
                outcome = await backend.run_on(request, decision.replica)
            else:
                outcome = await backend.run(request)
            meter.tool_done(outcome)
            meter.result = outcome.result
        return decision, outcome, await self._settle(meter)

    async def relay(self, step: Step, asked: RelayRequest, target: AnswerTarget) -> Settlement:
        """One attempt at an LLM step, handed on; see `Dispatcher.relay_llm`."""
        attempt = await self._gate.place(step)
        try:
            await self._gate.start(attempt)
            decision = attempt.decision
            target.placed(decision)
            relay = self._relays.get(decision.pool)
            if relay is None or not relay.relays(asked.path):
                await self._hand_on_chunks(attempt, asked.request, target)
            else:
                metered = MeteredTarget(target, attempt.meter, self._recorder.now_s)
                answer = await relay.relay(asked, decision.replica, metered)
                metered.used(answer.usage)
                target.relayed(answer)
            attempt.outcome = "ok"
        except PoolError as error:
            attempt.failed(error)
            raise
        finally:
            self._gate.end(attempt)
        return await self._settle(attempt.meter)

    async def _hand_on_chunks(
        self, attempt: Attempt, request: LlmRequest, target: AnswerTarget
    ) -> None:
        backend, meter = self._llm_pools[attempt.decision.pool], attempt.meter
        async with aclosing(backend.complete(request, attempt.decision.replica)) as chunks:
            async for chunk in chunks:
                has_text = bool(chunk.text or chunk.tool_calls)
                meter.piece(self._recorder.now_s(), chunk.usage, has_text=has_text)
                await target.chunk(chunk)

    @asynccontextmanager
    async def _attempt(self, step: Step) -> AsyncGenerator[tuple[Decision, AttemptMeter], None]:
        """Place the step and hold a place on its replica while the block runs.

        Whatever way the block is left, its end is recorded.
        """
        attempt = await self._gate.place(step)
        try:
            await self._gate.start(attempt)
            yield attempt.decision, attempt.meter
            attempt.outcome = "ok"
        except PoolError as error:
            attempt.failed(error)
            raise
        finally:
            self._gate.end(attempt)

    async def _settle(self, meter: AttemptMeter) -> Settlement:
        event = meter.finished
        await self._recorder.durable(event.task_id, meter.fence)
        return Settlement(usage=event.usage, cost_usd=event.cost_usd, attempt=event.attempt)


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
