"""One simulated replica: what runs on it, and the queue in front."""

import math

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.placement.queue import StepQueue
from steelyard.sim.attempts import SimAttempt
from steelyard.sim.kv_cache import KvCache
from steelyard.sim.llm_part import LlmPart
from steelyard.sim.serving import WHOLE_PROMPTS, Serving
from steelyard.sim.tool_part import ToolPart


class SimReplica:
    """A replica that takes up steps in the order of its queue, as far as it has room.

    The step at the head of the queue is never passed over: one that needs much memory waits for
    it, and those behind wait, too. Thin: a pool with both models and tools counts them together
    against either cap, as the policy does, but they do not slow one another down.

    Attributes:
        spec: The pool it belongs to.
        index: Its number in the pool.
        down: How many outages hold it down.
        alarm_s: When it is to be woken next; infinite when nothing runs.
    """

    def __init__(self, spec: PoolSpec, index: int, serving: Serving = WHOLE_PROMPTS) -> None:
        self.spec = spec
        self.index = index
        self.down = 0
        self.alarm_s = math.inf
        self._queue = StepQueue()
        self._waiting: dict[tuple[str, int], SimAttempt] = {}
        self._running = 0
        self._llm = LlmPart(
            spec.llm_curves,
            is_vendor=spec.token_price is not None,
            serving=serving,
        )
        self._serving = serving
        kv_tokens = spec.kv_tokens if serving.kv_tokens is None else serving.kv_tokens
        self._memory = None if kv_tokens is None else KvCache(kv_tokens)
        self._tools = None if spec.tool_curve is None else ToolPart(spec.tool_curve)

    def push(self, now_s: float, attempt: SimAttempt) -> None:
        """Let an attempt wait here for its turn.

        Args:
            now_s: Simulated time.
            attempt: The attempt.
        """
        self._waiting[attempt.step.key] = attempt
        self._queue.push(attempt.step, attempt.decision, now_s)

    def pop_ready(self, now_s: float) -> SimAttempt | None:
        """Take the next attempt out if there is room for it now.

        Args:
            now_s: Simulated time.
        """
        if not self._waiting or not self._has_room(self._queue.peek(now_s)):
            return None
        return self._waiting.pop(self._queue.pop(now_s).key)

    def start(self, now_s: float, attempt: SimAttempt) -> None:
        """Take an attempt up.

        Args:
            now_s: Simulated time.
            attempt: The attempt, with the cached tokens that the fleet believes in; memory that
                is modelled knows better.
        """
        attempt.started_s = now_s
        self._running += 1
        call = attempt.step.call
        if isinstance(call, LlmCall):
            if self._memory is not None:
                attempt.cached_tokens = self._memory.take(call, attempt.truth.output_tokens)
            attempt.cached_tokens = self._serving.found_tokens(attempt.cached_tokens)
            attempt.tells_cached = self._serving.tells_cached
        if self._tools is not None and attempt.step.kind == "tool":
            self._tools.start(now_s, attempt)
        else:
            self._llm.start(now_s, attempt)

    def next_s(self) -> float:
        """When does something happen here next? Infinite when nothing runs."""
        soonest_s = self._llm.next_s()
        return soonest_s if self._tools is None else min(soonest_s, self._tools.next_s())

    def advance(self, now_s: float) -> list[SimAttempt]:
        """Let time pass up to now.

        Args:
            now_s: Simulated time, not beyond `next_s`.

        Returns:
            Attempts that have ended, in order.
        """
        ended = self._llm.advance(now_s)
        for attempt in ended if self._memory is not None else ():
            self._leave_memory(attempt)
        if self._tools is not None:
            ended.extend(self._tools.advance(now_s))
        self._running -= len(ended)
        return ended

    def drain(self, now_s: float) -> list[SimAttempt]:
        """Take out everything that runs or waits, as the loss of the machine does.

        Args:
            now_s: Simulated time.
        """
        lost = self._llm.drain(now_s)
        if self._tools is not None:
            lost.extend(self._tools.drain(now_s))
        while len(self._queue):
            lost.append(self._waiting.pop(self._queue.pop(now_s).key))
        self._running = 0
        if self._memory is not None:
            self._memory.clear()
        return lost

    def _leave_memory(self, attempt: SimAttempt) -> None:
        call = attempt.step.call
        if self._memory is not None and isinstance(call, LlmCall):
            self._memory.leave(call, attempt.truth.output_tokens)

    def _has_room(self, step: Step) -> bool:
        call = step.call
        if isinstance(call, LlmCall):
            output_tokens = self._waiting[step.key].truth.output_tokens
            return self._running < self.spec.llm_curves[call.model].concurrency_cap and (
                self._memory is None or self._memory.fits(call, output_tokens)
            )
        curve = self.spec.tool_curve
        if curve is None or self._tools is None:
            return False
        return self._running < curve.slots and self._tools.has_memory(call.memory_bytes)
