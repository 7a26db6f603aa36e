"""The live driver: asks the policy, runs the step in the chosen pool, records what happened."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    Event,
    JsonValue,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    TaskFinished,
    TaskStatus,
    TaskSubmitted,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
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
    RelayRequest,
    ToolBackend,
    ToolOutcome,
    ToolRequest,
)
from steelyard.runtime.admission import Admission
from steelyard.runtime.attempts import Attempts, lost_attempt
from steelyard.runtime.embedding import from_journal
from steelyard.runtime.journal import Journal
from steelyard.runtime.named_tasks import NamedTasks, ended_silently
from steelyard.runtime.open_tasks import OpenTasks, TaskTerms
from steelyard.runtime.placing import Placing
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorded_answer import recorded_end, recorded_llm
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.relayed_steps import RelayedSteps
from steelyard.runtime.relaying import AnswerTarget
from steelyard.runtime.retry_budget import Retries
from steelyard.runtime.served_models import ServedModels
from steelyard.runtime.settlement import Settlement
from steelyard.runtime.task_ids import TaskIds
from steelyard.runtime.whole_requests import WholeRequest, WholeTarget

__all__ = ["Dispatcher", "Settlement"]

# An embedded engine that died is back after 4-9 s (measured here on busy and idle machines).
_OUTAGE_PATIENCE_S = 20.0


class Dispatcher:
    """Places steps and runs them.

    Args:
        recorder: The door to state and log; the pools' `PoolAdded` events are recorded already.
        policy: Decides where steps go.
        llm_pools: Backends by pool name.
        tool_pools: Backends by pool name.
        outage_patience_s: How long a step waits for a pool that could run it and is down.
        limits: Limits of pools over all processes of the store; None for none.
    """

    def __init__(
        self,
        recorder: Recorder,
        policy: Policy,
        llm_pools: Mapping[str, LlmBackend],
        tool_pools: Mapping[str, ToolBackend],
        outage_patience_s: float = _OUTAGE_PATIENCE_S,
        limits: PoolLimits | None = None,
    ) -> None:
        self._recorder = recorder
        self._placing = Placing(recorder, policy, outage_patience_s)
        self._tasks = OpenTasks()
        self._attempts = Attempts(
            recorder,
            self._placing,
            self._tasks,
            (llm_pools, tool_pools),
            limits or PoolLimits.none(),
        )
        self._retries = Retries(recorder.now_s)
        self._relayed = RelayedSteps(self._attempts, self._retries)
        self._ids = TaskIds()
        self.named = NamedTasks()
        self._served = ServedModels()

    @property
    def state(self) -> FleetState:
        """The fold of everything recorded so far."""
        return self._recorder.state

    @property
    def admission(self) -> Admission:
        """Lets steps start on replicas."""
        return self._attempts.admission

    def now_s(self) -> float:
        """What time is it on the log's clock?"""
        return self._recorder.now_s()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every later event."""
        self._recorder.subscribe(listener)

    def models(self) -> tuple[str, ...]:
        """Which models can be asked for?"""
        return tuple(self._served.context_tokens(self.state.pools))

    def context_tokens(self, model: str) -> int:
        """How long may prompt and answer be in the roomiest pool that serves the model?"""
        return self._served.context_tokens(self._recorder.state.pools).get(model, 0)

    def backends(self, model: str) -> list[LlmBackend]:
        """Which pools may be asked for a model, up or down?"""
        pools = self._attempts.llm_pools
        serving = [spec.name for spec in self.state.pools if model in spec.llm_curves]
        return [pools[name] for name in serving if name in pools]

    def ready(self) -> dict[str, int]:
        """How many replicas of each pool are up?"""
        return {spec.name: self.state.replicas_up(spec.name) for spec in self.state.pools}

    def replica_changed(
        self,
        pool: str,
        replica: int,
        *,
        up: bool,
        reason: str,
        draining: bool = False,
        rented: bool = True,
    ) -> None:
        """Record that a replica went down, came back or is to go; pools' watchers call this.

        Args:
            pool: Its pool.
            replica: Its index.
            up: Whether it takes new steps.
            reason: Why, for people.
            draining: Whether one that takes none goes on with those it has.
            rented: Whether it is paid for from now on.
        """
        self._recorder.record(
            ReplicaChanged(
                t_s=self.now_s(),
                pool=pool,
                replica=replica,
                up=up,
                reason=reason,
                draining=draining,
                rented=rented,
            )
        )
        if up:
            self._placing.pool_came_back()

    def put_pool(self, spec: PoolSpec, backend: LlmBackend | ToolBackend) -> None:
        """Add a pool, or change one: later steps see this specification and run in this backend."""
        self._attempts.put_pool(spec.name, backend)
        self._recorder.record(PoolAdded(t_s=self.now_s(), spec=spec))
        self._placing.pool_came_back()

    def remove_pool(self, pool: str) -> None:
        """Place no more steps in a pool; those that were placed there end there."""
        self._recorder.record(PoolRemoved(t_s=self.now_s(), pool=pool))

    def forget_pool(self, pool: str) -> None:
        """Let go of the backend of a removed pool, once nothing runs in it."""
        self._attempts.drop_pool(pool)

    def change_policy(self, policy: Policy) -> None:
        """Let this policy place steps from now on."""
        self._placing.change_policy(policy)

    def hedge_up_to(self, frac: float) -> None:
        """Let so many of the LLM steps get a second attempt when their answer is late (ADR 34).

        Args:
            frac: Share of the steps; 0 for none.
        """
        self._relayed.hedges.change(frac)

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
                    lost_attempt(self.now_s(), task_id, step.step_id, attempt), terms.fence
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

    @property
    def tasks_open(self) -> int:
        """How many tasks are open here? Those of `under_way` are not among them."""
        return len(self._tasks)

    def close_silent(self, since_s: float) -> int:
        """Close the tasks that requests had opened and of which nothing was heard since then.

        Args:
            since_s: Time on the log's clock.

        Returns:
            How many there were.
        """
        silent = self.named.silent_since(since_s)
        for task in silent:
            self._tasks.put_by(task.task_id)
            if task.told:
                self._recorder.record(ended_silently(self.now_s(), task), None)
            else:
                self.state.forget_task(task.task_id)
        return len(silent)

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

    def left_usd(self, task_id: str) -> float | None:
        """What is left of an open task's budget, in USD? None when it has none."""
        terms = self._tasks.terms(task_id)
        if terms is None or terms.budget_usd is None:
            return None
        return max(0.0, terms.budget_usd - self.state.committed_usd(task_id))

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
                async with aclosing(self._attempts.llm(step, request, journal)) as items:
                    async for item in items:
                        given = given or (isinstance(item, LlmChunk) and _says_something(item))
                        yield item
                done = True
            except PoolError as error:
                if given:
                    raise
                step = await self._retries.next_attempt(step, error, first)

    def relay_whole(
        self, step: Step, call: LlmCall, asked: RelayRequest, target: WholeTarget
    ) -> WholeRequest | None:
        """Send the only step of a task that nobody named; it becomes one event at its end.

        Returns:
            The request under way; None where it may not start at once: nothing has happened then,
            and `relay_llm` does it.
        """
        begun = self._attempts.whole.begin(step, call, asked, target)
        if begun is not None:
            self._retries.earn()
        return begun

    @property
    def under_way(self) -> Mapping[str, int]:
        """How many requests by pool run that no event tells of yet?"""
        return self._attempts.whole.under_way

    async def relay_llm(
        self,
        step: Step,
        asked: RelayRequest,
        target: AnswerTarget,
        failed: PoolError | None = None,
    ) -> Settlement:
        """Place and run an LLM step; pools that can hand their answer on byte for byte.

        An attempt that fails before anything was sent is retried, placed anew; one that is late may
        get a second one beside it, and the first that answers counts. Cancelling this cancels the
        work in the pools at once.

        Args:
            step: The step.
            asked: What to ask the model.
            target: Takes decisions, and events or chunks, and in the end what is left to be sent.
            failed: Why the attempt of this number failed, where it is over already.

        Returns:
            What it used and cost.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            PoolError: The last attempt's failure.
        """
        return await self._relayed.relay(step, asked, target, failed)

    async def relay_journalled(
        self, step: Step, asked: RelayRequest, target: AnswerTarget
    ) -> Settlement:
        """As `relay_llm`, as chunks; a step that has an answer in the log gets that one.

        Raises:
            NondeterminismError: The recorded answer is one to another question.
        """
        recorded = recorded_llm(await self.journal(step.task_id), step)
        if recorded is None:
            return await self._relayed.relay(step, asked, target, journal=True)
        placed, chunks, ended = recorded
        target.placed(placed.decision)
        for chunk in chunks:
            await target.chunk(chunk)
        return Settlement(usage=ended.usage, cost_usd=ended.cost_usd, attempt=ended.attempt)

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
                return await self._attempts.tool(step, request)
            except PoolError as error:
                step = await self._retries.next_attempt(step, error, first)

    async def embed(
        self,
        step: Step,
        texts: list[str],
        model: str,
        *,
        journal: bool = False,
        starts: Callable[[], None] = lambda: None,
    ) -> tuple[Decision, Embeddings, Settlement]:
        """Place and run an embedding step; a journalled one that is in the log is read from there.

        Args:
            step: The step; its call names the model and expects no output tokens.
            texts: What to turn into vectors.
            model: Name of the model.
            journal: Whether the vectors are recorded with the cost.
            starts: Called whenever an attempt starts; what it raises ends the step.

        Returns:
            Where it ran, the vectors, what it cost.

        Raises:
            PlacementError: The policy refused the step.
            PoolError: The last attempt's failure, e.g. that the pool offers no embeddings.
        """
        done = recorded_end(await self.journal(step.task_id), step) if journal else None
        if done is not None:
            placed, ended = done
            told = Settlement(usage=ended.usage, cost_usd=ended.cost_usd, attempt=ended.attempt)
            return placed.decision, from_journal(ended.result), told
        first = step.attempt
        self._retries.earn()
        while True:
            try:
                return await self._attempts.embed(step, texts, model, journal, starts)
            except PoolError as error:
                step = await self._retries.next_attempt(step, error, first)


def _says_something(chunk: LlmChunk) -> bool:
    """An endpoint's first chunk holds headers alone; after it a retry still goes unnoticed."""
    return bool(chunk.text or chunk.tool_calls or chunk.finish_reason)
