"""An attempt on its way through a simulated replica, and what it has used so far."""

from dataclasses import dataclass

from steelyard.domain.decision import Decision
from steelyard.domain.events import Usage
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.workload import WorkloadStep
from steelyard.sim.tasks import SimTask


@dataclass(slots=True, eq=False)
class SimAttempt:
    """One attempt, placed on a replica.

    Attributes:
        task: The task that it works for.
        at: Place of its step in the task.
        step: The step as the policy saw it.
        truth: What the step really uses.
        decision: Where it went.
        slowness: Factor on every service time, noise included.
        spec: The pool as it was when the attempt was placed; its price is the one that counts.
        started_s: When the replica took it up; None while it waits.
        first_token_s: When its first token was there; None before.
        cached_tokens: Prompt tokens read from the replica's cache.
        tells_cached: Whether the replica's engine reports those.
        work_left: Output tokens, or reference CPU seconds with `slowness`, still to be done.
    """

    task: SimTask
    at: int
    step: Step
    truth: WorkloadStep
    decision: Decision
    slowness: float
    spec: PoolSpec
    started_s: float | None = None
    first_token_s: float | None = None
    cached_tokens: int = 0
    tells_cached: bool = True
    work_left: float = 0.0

    def usage(self, now_s: float, relative_speed: float) -> Usage:
        """What has the attempt used up to now?

        Args:
            now_s: Simulated time.
            relative_speed: Speed of a core of its replica; of no account for models.

        Returns:
            The usage: of all its work when it has ended, of the part done when it is cut off.
        """
        if self.started_s is None:
            return Usage()
        wall_s = now_s - self.started_s
        if not isinstance(self.step.call, LlmCall):
            return Usage(
                cpu_s=(self.truth.cpu_s * self.slowness - self.work_left) / relative_speed,
                memory_bytes=self.truth.memory_bytes,
                wall_s=wall_s,
            )
        if self.first_token_s is None:
            # Cut off in its prefill: no vendor and no engine counts half a prompt.
            return Usage(wall_s=wall_s)
        return Usage(
            input_tokens=self.truth.prompt_tokens,
            cached_tokens=self.cached_tokens,
            cached_counting="measured" if self.tells_cached else "estimated",
            output_tokens=int(self.truth.output_tokens - self.work_left / self.slowness),
            wall_s=wall_s,
            start_to_first_token_s=self.first_token_s - self.started_s
            if self.truth.output_tokens
            else None,
        )
