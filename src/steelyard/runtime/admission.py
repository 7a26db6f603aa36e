"""Who starts next? One queue per replica, least slack first, up to its concurrency cap."""

import asyncio
from collections.abc import Callable

from steelyard.domain.decision import Decision
from steelyard.domain.events import AttemptFinished, AttemptStarted, StepPlaced
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import PoolOverloadedError, PoolRejectedError, SteelyardBugError
from steelyard.placement.queue import StepQueue
from steelyard.runtime.recorder import Recorder

# A replica with this many steps in front that may be in time takes no more; the caller is told when
# to come back. There is room for as many again that will be late, lest they keep others out
# meanwhile, and beyond them for as many steps of tasks that have begun: what was done of these
# would be lost.
_MAX_WAITING = 512

_Replica = tuple[str, int]
_Attempt = tuple[str, int, int]


def step_cap(spec: PoolSpec, step: Step) -> int:
    """How many such steps run at once on one replica of the pool?

    Args:
        spec: The pool.
        step: A step that it can run.

    Returns:
        The concurrency cap of the step's model, or the tool slots.
    """
    if isinstance(step.call, LlmCall):
        return spec.llm_curves[step.call.model].concurrency_cap
    if spec.tool_curve is None:
        raise SteelyardBugError(
            f"tool step {step.key} was placed in pool {spec.name} without tools"
        )
    return spec.tool_curve.slots


class Admission:
    """Lets steps start on replicas and records placement, start and end of every attempt."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._queues: dict[_Replica, StepQueue] = {}
        self._waiting: dict[_Attempt, asyncio.Future[None]] = {}
        self._open: set[_Attempt] = set()
        # Caps of replicas that steps wait for, and who is told when one more has to wait.
        self._caps: dict[_Replica, int] = {}
        self.on_wait: Callable[[], None] = _nobody

    def check_room(self, step: Step, decision: Decision) -> None:
        """Refuse a step when too many wait for its replica; nothing is recorded then.

        Args:
            step: The step.
            decision: Where it would go.

        Raises:
            PoolOverloadedError: The queue is full; it tells when to come back.
        """
        queue = self._queues.get((decision.pool, decision.replica))
        if queue is None:
            return
        most = (2 if step.begins_task else 3) * _MAX_WAITING
        in_front = queue.in_time if step.begins_task else 0
        if in_front >= _MAX_WAITING or len(queue) >= most:
            raise PoolOverloadedError(
                f"pool {decision.pool} has {len(queue)} steps waiting for replica "
                f"{decision.replica}; try again in {decision.predicted_wait_s:.1f} s",
                retry_after_s=decision.predicted_wait_s,
            )

    def may_start(self, decision: Decision, cap: int) -> bool:
        """Would a step that is placed there now start at once?"""
        queue = self._queues.get((decision.pool, decision.replica))
        if queue is not None and len(queue) > 0:
            return False
        return self._recorder.state.has_room(decision.pool, decision.replica, cap)

    def check_new(self, step: Step) -> None:
        """Refuse an attempt that is under way: two of one name would spoil the books.

        Args:
            step: The step, which its caller may have numbered.

        Raises:
            PoolRejectedError: It waits or runs already.
        """
        if _key(step) in self._open:
            raise PoolRejectedError(
                f"step {step.step_id} of task {step.task_id} is being served already; wait for "
                "its answer, or number the step differently"
            )

    def place(self, step: Step, decision: Decision, now_s: float) -> None:
        """Record where a step was placed.

        Args:
            step: The step.
            decision: Where it goes.
            now_s: Time at which the policy saw the fleet; a replay shows it the same fleet.
        """
        self._recorder.record(StepPlaced(t_s=now_s, step=step, decision=decision), step.fence)
        self._open.add(_key(step))

    async def enter(self, step: Step, decision: Decision, cap: int) -> None:
        """Wait until a placed step may start, and record its start.

        When this is cancelled the step leaves the queue; the caller then records its end.

        Args:
            step: The step.
            decision: Where it was placed.
            cap: Steps that run at once on the replica.
        """
        replica = (decision.pool, decision.replica)
        queue = self._queues.setdefault(replica, StepQueue())
        if len(queue) == 0 and self._recorder.state.has_room(*replica, cap):
            self._record_start(step)
            return
        may_start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[_key(step)] = may_start
        self._caps[replica] = cap
        now_s = self._recorder.now_s()
        queue.push(step, decision, now_s)
        self.on_wait()
        try:
            await may_start
        except asyncio.CancelledError:
            queue.remove(step)
            self._waiting.pop(_key(step), None)
            raise

    def leave(
        self, event: AttemptFinished, decision: Decision, cap: int, fence: int | None = None
    ) -> None:
        """Record the end of an attempt and let the next steps start.

        Args:
            event: How it ended.
            decision: Where it had been placed.
            cap: Steps that run at once on the replica.
            fence: Number of the lease under which it ran; None outside of durable tasks.
        """
        self._open.discard((event.task_id, event.step_id, event.attempt))
        self._recorder.record(event, fence)
        self.let_in(decision, cap)

    def let_in(self, decision: Decision, cap: int) -> None:
        """A place became free on a replica: let the next steps start."""
        self._let_in((decision.pool, decision.replica), cap)

    def let_in_all(self) -> None:
        """Shares of replicas have changed: let steps start wherever there is room."""
        for replica, cap in self._caps.items():
            self._let_in(replica, cap)

    def _let_in(self, replica: _Replica, cap: int) -> None:
        queue = self._queues.get(replica)
        if queue is None:
            return
        while len(queue) > 0 and self._recorder.state.has_room(*replica, cap):
            step = queue.pop(self._recorder.now_s())
            may_start = self._waiting.pop(_key(step))
            # A waiter that was cancelled in this very turn of the loop has left already.
            if not may_start.done():
                self._record_start(step)
                may_start.set_result(None)

    def _record_start(self, step: Step) -> None:
        self._recorder.record(
            AttemptStarted(
                t_s=self._recorder.now_s(),
                task_id=step.task_id,
                step_id=step.step_id,
                attempt=step.attempt,
            ),
            step.fence,
        )


def _nobody() -> None:
    """Nobody is told."""


def _key(step: Step) -> _Attempt:
    return (step.task_id, step.step_id, step.attempt)
