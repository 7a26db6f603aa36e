"""The live driver: asks the policy, runs the step in the chosen pool, records what happened."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import (
    PoolError,
)
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
from steelyard.runtime.attempts import Attempts
from steelyard.runtime.embedding import from_journal
from steelyard.runtime.placing import Placing
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorded_answer import recorded_end, recorded_llm
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.relayed_steps import RelayedSteps
from steelyard.runtime.relaying import AnswerTarget
from steelyard.runtime.retry_budget import Retries
from steelyard.runtime.served_models import ServedModels
from steelyard.runtime.settlement import Settlement
from steelyard.runtime.task_desk import TaskDesk
from steelyard.runtime.whole_requests import WholeRequest, WholeTarget

__all__ = ["Dispatcher", "Settlement"]

# An embedded engine that died is back after 4-9 s (measured here on busy and idle machines).
_OUTAGE_PATIENCE_S = 20.0


class Dispatcher(TaskDesk):
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
        super().__init__(recorder)
        self._placing = Placing(recorder, policy, outage_patience_s)
        self._attempts = Attempts(
            recorder,
            self._placing,
            self._tasks,
            (llm_pools, tool_pools),
            limits or PoolLimits.none(),
        )
        self._retries = Retries(recorder.now_s)
        self._relayed = RelayedSteps(self._attempts, self._retries)
        self._served = ServedModels()

    @property
    def placing(self) -> Placing:
        """Decides where steps go."""
        return self._placing

    @property
    def admission(self) -> Admission:
        """Lets steps start on replicas."""
        return self._attempts.admission

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
