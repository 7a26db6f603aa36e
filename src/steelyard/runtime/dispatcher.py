"""The live driver: asks the policy, runs the step in the chosen pool, records what happened."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    Event,
    JsonValue,
    ReplicaChanged,
    TaskFinished,
    TaskStatus,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step
from steelyard.errors import (
    PoolError,
    SteelyardError,
)
from steelyard.fleet.state import FleetState
from steelyard.placement.policy import Policy
from steelyard.pools.backend import (
    Embeddings,
    LlmBackend,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    RelayBackend,
    RelayedAnswer,
    RelayRequest,
    RelayTarget,
    ToolBackend,
    ToolOutcome,
    ToolRequest,
)
from steelyard.runtime.attempts import Attempt, Attempts, MeteredTarget
from steelyard.runtime.journal import Journal
from steelyard.runtime.meter import AttemptMeter
from steelyard.runtime.open_tasks import OpenTasks, TaskTerms
from steelyard.runtime.placing import Placing
from steelyard.runtime.recorded_answer import recorded_llm
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.retry import pause_before_retry_s
from steelyard.runtime.retry_budget import RetryBudget
from steelyard.runtime.task_ids import TaskIds
from steelyard.runtime.transcript import Transcript

# `error_code` of attempts that were running when their worker died.
WORKER_LOST = "worker_lost"
# An embedded engine that died is back after 4-9 s (measured here on busy and idle machines).
_OUTAGE_PATIENCE_S = 20.0


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


class AnswerTarget(RelayTarget, Protocol):
    """Takes all that `Dispatcher.relay_llm` says."""

    @property
    def begun(self) -> bool:
        """Whether something was sent, so that a retry would be noticed."""
        ...

    def placed(self, decision: Decision) -> None:
        """The step starts there; said again for every retry, and what came before is void."""
        ...

    async def chunk(self, chunk: LlmChunk) -> None:
        """The next piece, from a pool that does not write OpenAI's wire itself."""
        ...

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left."""
        ...


class Dispatcher:
    """Places steps and runs them.

    Args:
        recorder: The door to state and log; the pools' `PoolAdded` events are recorded already.
        policy: Decides where steps go.
        llm_pools: Backends by pool name.
        tool_pools: Backends by pool name.
        outage_patience_s: How long a step waits for a pool that could run it and is down.
    """

    def __init__(
        self,
        recorder: Recorder,
        policy: Policy,
        llm_pools: Mapping[str, LlmBackend],
        tool_pools: Mapping[str, ToolBackend],
        outage_patience_s: float = _OUTAGE_PATIENCE_S,
    ) -> None:
        self._recorder = recorder
        self._llm_pools = dict(llm_pools)
        self._tool_pools = dict(tool_pools)
        self._relays = {
            name: pool for name, pool in self._llm_pools.items() if isinstance(pool, RelayBackend)
        }
        self._placing = Placing(recorder, policy, outage_patience_s)
        self._tasks = OpenTasks()
        self._attempts = Attempts(recorder, self._placing, self._tasks)
        self._retries = RetryBudget()
        self._ids = TaskIds()
        self._seen_pools: tuple[PoolSpec, ...] | None = None
        self._longest: dict[str, int] = {}

    @property
    def state(self) -> FleetState:
        """The fold of everything recorded so far."""
        return self._recorder.state

    def now_s(self) -> float:
        """What time is it on the log's clock?"""
        return self._recorder.now_s()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every later event."""
        self._recorder.subscribe(listener)

    def models(self) -> tuple[str, ...]:
        """Which models can be asked for?"""
        return tuple(self._contexts())

    def context_tokens(self, model: str) -> int:
        """How long may prompt and answer be in the roomiest pool that serves the model?"""
        return self._contexts().get(model, 0)

    def _contexts(self) -> dict[str, int]:
        """Longest context of every model, by name; made anew when the fleet changes."""
        pools = self.state.pools
        if pools is not self._seen_pools:
            found: dict[str, int] = {}
            for spec in pools:
                for model, curve in spec.llm_curves.items():
                    found[model] = max(found.get(model, 0), curve.context_tokens)
            self._seen_pools, self._longest = pools, dict(sorted(found.items()))
        return self._longest

    def ready(self) -> dict[str, int]:
        """How many replicas of each pool are up?"""
        return {spec.name: self.state.replicas_up(spec.name) for spec in self.state.pools}

    def replica_changed(self, pool: str, replica: int, *, up: bool, reason: str) -> None:
        """Record that a replica went down or came back; pools' watchers call this."""
        event = ReplicaChanged(t_s=self.now_s(), pool=pool, replica=replica, up=up, reason=reason)
        self._recorder.record(event)
        if up:
            self._placing.pool_came_back()

    # ------------------------------------------------------------------ tasks

    def new_task_id(self) -> str:
        """An id for a task that nobody has named."""
        return self._ids.new()

    def open_task(
        self, task_id: str, agent: str, deadline_s: float | None, budget_usd: float | None
    ) -> None:
        """Record that a task has arrived; nothing happens when it is open already.

        Args:
            task_id: The task.
            agent: Its agent.
            deadline_s: Absolute deadline on the log's clock; None without one.
            budget_usd: Budget; None without one.
        """
        if self._tasks.terms(task_id) is not None:
            return
        self._tasks.open(
            task_id, TaskTerms(agent=agent, deadline_s=deadline_s, budget_usd=budget_usd)
        )
        self._recorder.record(
            TaskSubmitted(
                t_s=self.now_s(),
                task_id=task_id,
                agent=agent,
                deadline_s=deadline_s,
                budget_usd=budget_usd,
            )
        )

    def take_task(self, task_id: str, terms: TaskTerms, events: Sequence[Event]) -> Journal:
        """Go on with a task that this process has a lease for.

        Attempts that its last worker left open are recorded as lost: nobody knows how they ended,
        and their cost, if any, was never recorded.

        Args:
            task_id: The task.
            terms: Its terms, with the lease's number.
            events: Its journal.

        Returns:
            The journal, folded.
        """
        journal = Journal.of(events)
        self._tasks.open(task_id, terms, journal.next_step_id)
        if not self.state.has_task(task_id):
            self._recorder.restore(events)
        for step in journal.in_order():
            for attempt in sorted(step.open):
                self._recorder.record(
                    _lost_attempt(self.now_s(), task_id, step.step_id, attempt), terms.fence
                )
            step.open.clear()
            if step.done and step.kind in {"llm", "tool"} and not step.error_code:
                self._tasks.step_submitted(task_id, step.step_id, step.parents)
                self._tasks.step_done(task_id, step.step_id)
        return journal

    def drop_task(self, task_id: str) -> None:
        """Forget a task that this process has no lease for any more; nothing is recorded."""
        self._tasks.close(task_id)
        self.state.forget_task(task_id)

    def close_task(
        self,
        task_id: str,
        status: TaskStatus,
        error: SteelyardError | None = None,
        result: JsonValue = None,
        *,
        wrapped_up: bool = False,
    ) -> TaskFinished:
        """Record that a task has ended.

        Returns:
            What was recorded; `durable` says when it is on disk.
        """
        terms = self._tasks.terms(task_id)
        self._tasks.close(task_id)
        event = TaskFinished(
            t_s=self.now_s(),
            task_id=task_id,
            status=status,
            error_code="" if error is None else error.code,
            error="" if error is None else str(error),
            result=result,
            wrapped_up=wrapped_up,
        )
        self._recorder.record(event, None if terms is None else terms.fence)
        return event

    def record(self, event: Event, fence: int | None) -> None:
        """Record what a task's own worker knows of it."""
        self._recorder.record(event, fence)

    async def durable(self, task_id: str, fence: int | None) -> None:
        """Wait until all events of a task are on disk; see `Recorder.durable`."""
        await self._recorder.durable(task_id, fence)

    async def journal(self, task_id: str) -> Sequence[Event]:
        """Which events has a task, in order?"""
        return await asyncio.wrap_future(self._recorder.log.journal(task_id))

    def task_terms(self, task_id: str) -> TaskTerms | None:
        """Agent, deadline and budget of an open task; None when it is not open."""
        return self._tasks.terms(task_id)

    def next_step_id(self, task_id: str) -> int:
        """Which number does the task's next step get?"""
        return self._tasks.next_step_id(task_id)

    def parents(self, task_id: str, step_id: int) -> tuple[int, ...]:
        """On which finished steps is a step built that is submitted now?"""
        return self._tasks.parents(task_id, step_id)

    # ------------------------------------------------------------------ steps

    async def serve_llm(
        self, step: Step, request: LlmRequest, *, journal: bool = False
    ) -> AsyncGenerator[Decision | LlmChunk | Settlement, None]:
        """Place and run an LLM step.

        An attempt that fails before its first piece is retried, placed anew. Closing the iterator
        cancels the work in the pool at once.

        Args:
            step: The step.
            request: What to ask the model.
            journal: Whether the answer is recorded with the cost.

        Yields:
            The decision when the step starts (again for every retry), the answer's chunks, the
            settlement.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            PoolError: The last attempt's failure.
        """
        done, first = False, step.attempt
        self._retries.earn()
        while not done:
            given = False
            try:
                async with aclosing(self._attempt_llm(step, request, journal)) as items:
                    async for item in items:
                        given = given or (isinstance(item, LlmChunk) and _says_something(item))
                        yield item
                done = True
            except PoolError as error:
                if given:
                    raise
                step = await self._next_attempt(step, error, first)

    async def relay_llm(self, step: Step, asked: RelayRequest, target: AnswerTarget) -> Settlement:
        """Place and run an LLM step; pools that can hand their answer on byte for byte.

        An attempt that fails before anything was sent is retried, placed anew. Cancelling this
        cancels the work in the pool at once.

        Args:
            step: The step.
            asked: What to ask the model.
            target: Takes decisions, and events or chunks, and in the end what is left to be sent.

        Returns:
            What it used and cost.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            PoolError: The last attempt's failure.
        """
        first = step.attempt
        self._retries.earn()
        while True:
            try:
                return await self._relay_once(step, asked, target)
            except PoolError as error:
                if target.begun:
                    raise
                step = await self._next_attempt(step, error, first)

    async def _relay_once(
        self, step: Step, asked: RelayRequest, target: AnswerTarget
    ) -> Settlement:
        attempt = await self._attempts.place(step)
        try:
            await self._attempts.start(attempt)
            decision = attempt.decision
            target.placed(decision)
            relay = self._relays.get(decision.pool)
            if relay is None:
                await self._hand_on_chunks(attempt, asked.request, target)
            else:
                metered = MeteredTarget(target, attempt.meter, self.now_s)
                answer = await relay.relay(asked, decision.replica, metered)
                metered.used(answer.usage)
                target.relayed(answer)
            attempt.outcome = "ok"
        except PoolError as error:
            attempt.failed(error)
            raise
        finally:
            self._attempts.end(attempt)
        return await self._settle(attempt.meter)

    async def _hand_on_chunks(
        self, attempt: Attempt, request: LlmRequest, target: AnswerTarget
    ) -> None:
        backend, meter = self._llm_pools[attempt.decision.pool], attempt.meter
        async with aclosing(backend.complete(request, attempt.decision.replica)) as chunks:
            async for chunk in chunks:
                has_text = bool(chunk.text or chunk.tool_calls)
                meter.piece(self.now_s(), chunk.usage, has_text=has_text)
                await target.chunk(chunk)

    async def serve_llm_once(
        self, step: Step, request: LlmRequest, *, journal: bool = False
    ) -> AsyncGenerator[Decision | LlmChunk | Settlement, None]:
        """As `serve_llm`, but a journalled step that has an answer in the log gets that one.

        Raises:
            NondeterminismError: The recorded answer is one to another question.
        """
        recorded = recorded_llm(await self.journal(step.task_id), step) if journal else None
        if recorded is not None:
            placed, chunks, ended = recorded
            yield placed.decision
            for chunk in chunks:
                yield chunk
            yield Settlement(usage=ended.usage, cost_usd=ended.cost_usd, attempt=ended.attempt)
            return
        async with aclosing(self.serve_llm(step, request, journal=journal)) as items:
            async for item in items:
                yield item

    async def serve_tool(
        self, step: Step, request: ToolRequest
    ) -> tuple[Decision, ToolOutcome, Settlement]:
        """Place and run a tool step; its result is recorded with its cost.

        Args:
            step: The step.
            request: The tool and its arguments.

        Returns:
            Where it ran, what it returned, what it cost.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            PoolError: The last attempt's failure.
        """
        first = step.attempt
        self._retries.earn()
        while True:
            try:
                return await self._attempt_tool(step, request)
            except PoolError as error:
                step = await self._next_attempt(step, error, first)

    async def _next_attempt(self, step: Step, error: PoolError, first: int) -> Step:
        """Wait for the step's next attempt; raises the error when there is none."""
        pause_s = pause_before_retry_s(error, step.attempt - first, self.now_s(), step.deadline_s)
        if pause_s is None or not self._retries.take():
            raise error
        await asyncio.sleep(pause_s)
        return msgspec.structs.replace(step, attempt=step.attempt + 1)

    async def embed(
        self, step: Step, texts: list[str], model: str
    ) -> tuple[Decision, Embeddings, Settlement]:
        """Place and run an embedding step, once.

        Args:
            step: The step; its call names the model and expects no output tokens.
            texts: What to turn into vectors.
            model: Name of the model.

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
            meter.piece(self.now_s(), usage, has_text=False)
        return decision, vectors, await self._settle(meter)

    async def _attempt_llm(
        self, step: Step, request: LlmRequest, journal: bool
    ) -> AsyncGenerator[Decision | LlmChunk | Settlement, None]:
        transcript = Transcript()
        async with self._attempt(step) as (decision, meter):
            yield decision
            backend = self._llm_pools[decision.pool]
            async with aclosing(backend.complete(request, decision.replica)) as chunks:
                async for chunk in chunks:
                    has_text = bool(chunk.text or chunk.tool_calls)
                    meter.piece(self.now_s(), chunk.usage, has_text=has_text)
                    if journal:
                        transcript.add(chunk)
                    yield chunk
            if journal:
                meter.result = msgspec.to_builtins(transcript.finish())
        yield await self._settle(meter)

    async def _attempt_tool(
        self, step: Step, request: ToolRequest
    ) -> tuple[Decision, ToolOutcome, Settlement]:
        async with self._attempt(step) as (decision, meter):
            outcome = await self._tool_pools[decision.pool].run(request)
            meter.tool_done(outcome)
            meter.result = outcome.result
        return decision, outcome, await self._settle(meter)

    @asynccontextmanager
    async def _attempt(self, step: Step) -> AsyncGenerator[tuple[Decision, AttemptMeter], None]:
        """Place the step and hold a place on its replica while the block runs.

        Whatever way the block is left, its end is recorded.
        """
        attempt = await self._attempts.place(step)
        try:
            await self._attempts.start(attempt)
            yield attempt.decision, attempt.meter
            attempt.outcome = "ok"
        except PoolError as error:
            attempt.failed(error)
            raise
        finally:
            self._attempts.end(attempt)

    async def _settle(self, meter: AttemptMeter) -> Settlement:
        event = meter.finished
        await self._recorder.durable(event.task_id, meter.fence)
        return Settlement(usage=event.usage, cost_usd=event.cost_usd, attempt=event.attempt)


def _lost_attempt(t_s: float, task_id: str, step_id: int, attempt: int) -> AttemptFinished:
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


def _says_something(chunk: LlmChunk) -> bool:
    """An endpoint's first chunk holds headers alone; after it a retry still goes unnoticed."""
    return bool(chunk.text or chunk.tool_calls or chunk.finish_reason)
