"""One attempt at a step: placed, admitted, started, and ended whatever happens."""

from collections.abc import Callable

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptOutcome
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import PoolError, PoolUnavailableError
from steelyard.runtime.admission import Admission, step_cap
from steelyard.runtime.meter import AttemptMeter
from steelyard.runtime.open_tasks import OpenTasks
from steelyard.runtime.placing import Placing
from steelyard.runtime.pool_limits import PoolLimits
from steelyard.runtime.recorder import Recorder


class Attempt:
    """An attempt that has been placed.

    Attributes:
        step: The step.
        decision: Where it runs.
        meter: What it uses.
        cap: Steps that run at once on its replica.
        outcome: How it ends, unless something says otherwise: as if it were cancelled now.
        failure: Why it failed, until its end is recorded.
        placed_s: When it was placed, on the log's clock; 0 where nobody asks.
    """

    __slots__ = ("cap", "decision", "failure", "meter", "outcome", "placed_s", "step")

    def __init__(self, step: Step, decision: Decision, meter: AttemptMeter, cap: int) -> None:
        self.placed_s = 0.0
        self.step = step
        self.decision = decision
        self.meter = meter
        self.cap = cap
        self.outcome: AttemptOutcome = "cancelled"
        self.failure: PoolError | None = None

    def failed(self, error: PoolError) -> None:
        """It ends with this error."""
        self.outcome, self.failure = "failed", error


class AttemptGate:
    """Begins and ends attempts.

    Args:
        recorder: State and log.
        placing: Decides where steps go.
        tasks: Told which steps were submitted and done.
        limits: Places in pools with limits over all processes of the store.
    """

    def __init__(
        self, recorder: Recorder, placing: Placing, tasks: OpenTasks, limits: PoolLimits
    ) -> None:
        self._recorder = recorder
        self._placing = placing
        self.admission = Admission(recorder)
        self._tasks = tasks
        self._limits = limits

    def place_at_once(self, step: Step, call: LlmCall, now_s: float) -> Decision | None:
        """Where would the policy send a step that waits for nothing? Nothing is recorded.

        Args:
            step: The step.
            call: What it asks.
            now_s: Now, on the log's clock.

        Returns:
            The decision; None where it is a refusal, or limits are to be asked first.
        """
        if self._limits.any:
            return None
        return self._placing.ask_at_once(step, call, now_s)

    async def place(self, step: Step) -> Attempt:
        """Place a step.

        Policy and `StepPlaced` share one moment, with nothing between them, so that a replay
        shows the policy the fleet it saw. `end` must be called, whatever comes after this.

        Raises:
            NoFeasiblePoolError: The policy refused the step.
            BudgetExceededError: The policy refused it for its cost.
            PoolError: The replica's queue is full, or the step is being served already.
        """
        decision, now_s = await self._placing.decide(step)
        self.admission.check_new(step)
        self.admission.check_room(step, decision)
        return self._placed(step, decision, self._spec(decision.pool), now_s)

    def place_beside(self, step: Step, allows: Callable[[Decision], bool]) -> Attempt | None:
        """Place a second attempt at a step of which one is under way, in one moment as `place`.

        Args:
            step: The attempt.
            allows: Whether it may be made there.

        Returns:
            The attempt; None where the policy has no place for it in time, where it would have to
            wait, or where it is not allowed: nothing is recorded then.

        Raises:
            PoolError: The step is being served already.
        """
        now_s = self._recorder.now_s()
        decision = self._decide_beside(step, allows, now_s)
        if decision is None:
            return None
        return self._placed(step, decision, self._spec(decision.pool), now_s)

    def has_place_beside(self, step: Step, allows: Callable[[Decision], bool]) -> bool:
        """Would `place_beside` place it now?"""
        return self._decide_beside(step, allows, self._recorder.now_s()) is not None

    def _decide_beside(
        self, step: Step, allows: Callable[[Decision], bool], now_s: float
    ) -> Decision | None:
        self.admission.check_new(step)
        decision = self._placing.ask(step, now_s)
        if not isinstance(decision, Decision) or (decision.slack_s or 0.0) < 0.0:
            return None
        cap = step_cap(self._spec(decision.pool), step)
        return decision if self.admission.may_start(decision, cap) and allows(decision) else None

    def _placed(self, step: Step, decision: Decision, spec: PoolSpec, now_s: float) -> Attempt:
        attempt = Attempt(step, decision, AttemptMeter(step, spec), step_cap(spec, step))
        attempt.placed_s = now_s
        self.admission.place(step, decision, now_s)
        self._tasks.step_submitted(step.task_id, step.step_id, step.parents)
        return attempt

    async def start(self, attempt: Attempt) -> None:
        """Wait for the attempt's turn.

        Raises:
            LeaseLostError: Another worker has the task.
            StoreError: Its pool has a limit, and the store that counts is broken.
        """
        step = attempt.step
        if step.fence is not None:
            # The lease is checked, and the attempt known to a later worker, before it runs.
            await self._recorder.durable(step.task_id, step.fence)
        await self._limits.enter(step, attempt.decision, self._recorder.now_s())
        await self.admission.enter(step, attempt.decision, attempt.cap)
        attempt.meter.start(self._recorder.now_s())

    def end(self, attempt: Attempt) -> None:
        """Record the end of an attempt and let the next ones start."""
        # Its frames hold the attempt.
        failure, attempt.failure = attempt.failure, None
        ended = attempt.meter.finish(self._recorder.now_s(), attempt.outcome, failure)
        step = attempt.step
        self.admission.leave(ended, attempt.decision, attempt.cap, step.fence)
        self._limits.leave(step, attempt.decision)
        if ended.outcome == "ok":
            self._tasks.step_done(step.task_id, step.step_id)

    def _spec(self, pool: str) -> PoolSpec:
        spec = self._recorder.state.spec(pool)
        if spec is None:
            raise PoolUnavailableError(f"pool {pool} left the fleet; the step can be placed again")
        return spec
