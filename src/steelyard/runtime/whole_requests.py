"""Requests that are a task of their own, and one event: no name, deadline or budget, one attempt.

Most requests of plain OpenAI clients are like that. Their task is opened, placed, started, ended
and closed within one answer, and nobody can ask for it meanwhile; so the fleet state is told of
beginning and end directly, and the log gets one `RequestServed` at the end (ADR 21). What turns out
to need more (a second attempt, a place in a queue) goes the way of all other steps.
"""

from collections.abc import Mapping
from typing import Protocol

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptStarted, RequestServed, StepPlaced, TaskSubmitted
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import PoolError, SteelyardBugError
from steelyard.fleet.accounts import OpenAttempt
from steelyard.perf.cost import attempt_usd
from steelyard.pools.backend import (
    Cut,
    QuickRelayBackend,
    ReadFlow,
    RelayedAnswer,
    RelayRequest,
    RelayTarget,
)
from steelyard.runtime.attempt import Attempt, AttemptGate
from steelyard.runtime.meter import AttemptMeter
from steelyard.runtime.open_tasks import OpenTasks, TaskTerms
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.settlement import Settlement


class WholeTarget(RelayTarget, Protocol):
    """Takes all that a whole request says; called while bytes are read, so it must not raise."""

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left, once it is settled."""
        ...

    def settled(self, settlement: Settlement) -> None:
        """Usage and cost are on disk."""
        ...

    def broke(self, error: BaseException, *, recorded: bool) -> None:
        """It will not be settled: the attempt failed and waits for `fail`, or the log is broken.

        Args:
            error: Why.
            recorded: Whether its end is recorded already, as far as that goes.
        """
        ...


class WholeRequest:
    """One such request, under way.

    Attributes:
        step: Its step.
        decision: Where it runs.
    """

    __slots__ = (
        *("_books", "_cap", "_cut", "_is_over", "_meter", "_opened", "_settlement", "_spec"),
        *("_target", "decision", "step"),
    )

    def __init__(
        self, books: "WholeRequests", step: Step, decision: Decision, target: WholeTarget
    ) -> None:
        self.step = step
        self.decision = decision
        self._books = books
        self._target = target
        self._is_over = False
        self._cut: Cut | None = None

    def begin(self, spec: PoolSpec, cap: int, opened: OpenAttempt, cut: Cut) -> None:
        """It was sent."""
        self._spec = spec
        self._cap = cap
        self._opened = opened
        self._cut = cut
        self._meter = AttemptMeter(self.step, spec)
        self._meter.start(opened.placed_s)

    def cancel(self) -> None:
        """Nobody wants the answer any more: stop the work, and record what was used.

        Raises:
            StoreError: The log is broken.
        """
        if self._cut is not None and not self._is_over:
            self._cut.cut()
            self._end(ok=False)
        self._is_over = True

    def fail(self, error: PoolError) -> None:
        """Record a failed attempt as any other, its task open: another one may follow.

        Raises:
            StoreError: The log is broken.
        """
        books, step = self._books, self.step
        recorder, placed_s = books.recorder, self._opened.placed_s
        terms = TaskTerms(agent=step.agent, deadline_s=None, budget_usd=None)
        books.tasks.open(step.task_id, terms, step.step_id + 1)
        books.tasks.step_submitted(step.task_id, step.step_id, step.parents)
        submitted = TaskSubmitted(t_s=placed_s, task_id=step.task_id, agent=step.agent)
        recorder.state.adopt(self._opened, submitted)
        books.count(self.decision.pool, -1)
        recorder.note(submitted)
        recorder.note(StepPlaced(t_s=placed_s, step=step, decision=self.decision))
        recorder.note(
            AttemptStarted(
                t_s=placed_s, task_id=step.task_id, step_id=step.step_id, attempt=step.attempt
            )
        )
        attempt = Attempt(step, self.decision, self._meter, self._cap)
        attempt.failed(error)
        books.gate.end(attempt)

    # ------------------------------------------- RelayTarget, and Ended

    def flows(self, flow: ReadFlow | None) -> None:
        """Hold the upstream back by this."""
        self._target.flows(flow)

    def events(self, data: bytes, tokens: int) -> None:
        """Count and hand on."""
        if tokens:
            self._meter.pieces(self._books.recorder.now_s(), tokens)
        self._target.events(data, tokens)

    def ended(self, answer: RelayedAnswer | None, error: PoolError | None) -> None:
        """The pool is done with it."""
        if self._is_over:
            return
        # It holds this one.
        self._cut = None
        if answer is None:
            self._is_over = True
            broken = error or SteelyardBugError(f"step {self.step.key} ended without an answer")
            self._target.broke(broken, recorded=error is None)
            return
        self._meter.used(answer.usage)
        self._target.relayed(answer)
        try:
            self._end(ok=True)
        except Exception as broken:  # noqa: BLE001 - a gateway request's boundary
            self._is_over = True
            self._target.broke(broken, recorded=True)
            return
        self._books.recorder.when_durable(self._durable)

    def _end(self, *, ok: bool) -> None:
        self._cut = None
        books, step = self._books, self.step
        now_s = books.recorder.now_s()
        usage = self._meter.usage(now_s)
        cost_usd = attempt_usd(self._spec, step, usage)
        self._settlement = Settlement(usage=usage, cost_usd=cost_usd, attempt=step.attempt)
        event = RequestServed(
            t_s=now_s,
            placed_s=self._opened.placed_s,
            step=step,
            decision=self.decision,
            outcome="ok" if ok else "cancelled",
            usage=usage,
            cost_usd=cost_usd,
        )
        books.count(self.decision.pool, -1)
        try:
            books.recorder.record_served(event, self._opened)
        finally:
            books.gate.admission.let_in(self.decision, self._cap)

    def _durable(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        if error is not None:
            self._target.broke(error, recorded=True)
            return
        self._target.settled(self._settlement)


class WholeRequests:
    """Begins such requests.

    Args:
        recorder: State and log.
        gate: Places steps, and lets those that wait start.
        tasks: Told of a request that needs more after all.
        backends: Pools that can send a request within one call.
    """

    def __init__(
        self,
        recorder: Recorder,
        gate: AttemptGate,
        tasks: OpenTasks,
        backends: Mapping[str, QuickRelayBackend],
    ) -> None:
        self._backends = dict(backends)
        self.recorder = recorder
        self.gate = gate
        self.tasks = tasks
        # Requests under way by pool: no event tells of them yet.
        self.under_way: dict[str, int] = {}

    def put_pool(self, name: str, backend: QuickRelayBackend | None) -> None:
        """Send later requests of a pool to this backend, or to none in one call."""
        self._backends.pop(name, None)
        if backend is not None:
            self._backends[name] = backend

    def count(self, pool: str, more: int) -> None:
        """So many more are under way in a pool."""
        self.under_way[pool] = self.under_way.get(pool, 0) + more

    def begin(
        self, step: Step, call: LlmCall, asked: RelayRequest, target: WholeTarget
    ) -> WholeRequest | None:
        """Place a step and send it, if it may start at once.

        Args:
            step: The only step of a task that nobody has heard of.
            call: What it asks.
            asked: What to ask the model.
            target: Takes what comes.

        Returns:
            The request; None where it must wait, or is refused: nothing has happened then.
        """
        recorder, gate = self.recorder, self.gate
        now_s = recorder.now_s()
        decision = gate.place_at_once(step, call, now_s)
        if decision is None:
            return None
        pool = decision.pool
        spec, backend = recorder.state.spec(pool), self._backends.get(pool)
        if spec is None or backend is None:
            return None
        cap = spec.llm_curves[call.model].concurrency_cap
        if not gate.admission.may_start(decision, cap):
            return None
        request = WholeRequest(self, step, decision, target)
        cut = backend.relay_now(asked, decision.replica, request, request.ended)
        if cut is None:
            return None
        self.under_way[pool] = self.under_way.get(pool, 0) + 1
        request.begin(spec, cap, recorder.state.begin(step, decision, now_s), cut)
        return request
