"""What ended attempts taught: what such steps use, and by how much pools' curves are off."""

import math
from array import array

from steelyard.domain.events import Usage
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.accounts import OpenAttempt
from steelyard.fleet.estimates import RunningSpread, StepEstimate
from steelyard.perf.predict import prefill_s, shared_itl_s

# A correction beyond this factor says that a curve is wrong, not that a machine is slow.
_MAX_LOG_CORRECTION = math.log(20.0)
_MAX_ESTIMATES = 10_000
# No prediction is better than the first; one that is worse than the second says too little for a
# step to be given up by it.
LEAST_ERROR_FRAC = 0.05
MOST_ERROR_FRAC = 0.25


class Lessons:
    """Running means, by agent and step name, and by pool.

    Attributes:
        correction: Measured over predicted service time, by pool.
        error_frac: By how much a service time may be off that prediction, by pool: two standard
            deviations, within bounds.
    """

    def __init__(self) -> None:
        self.correction = array("d")
        self.error_frac = array("d")
        self._log_correction: list[RunningSpread] = []
        self._estimates: dict[tuple[str, str], StepEstimate] = {}

    def add_pool(self) -> None:
        """One more pool."""
        self._log_correction.append(RunningSpread())
        # New ones, never longer ones: views share them.
        self.correction = self.correction + array("d", [1.0])
        self.error_frac = self.error_frac + array("d", [LEAST_ERROR_FRAC])

    def known(self, step: Step) -> StepEstimate | None:
        """What is known of such steps? None before one was seen."""
        return self._estimates.get((step.agent, step.name))

    def estimate_of(self, agent: str, name: str) -> StepEstimate:
        """The estimate to learn into; the oldest goes when clients make up ever new names."""
        estimate = self._estimates.get((agent, name))
        if estimate is None:
            if len(self._estimates) >= _MAX_ESTIMATES:
                self._estimates.pop(next(iter(self._estimates)))
            estimate = self._estimates[(agent, name)] = StepEstimate.unseen()
        return estimate

    def learn(self, usage: Usage, attempt: OpenAttempt, spec: PoolSpec) -> StepEstimate:
        """Correct what is expected of the pool and of such steps by what was measured.

        Args:
            usage: What the attempt used.
            attempt: The attempt, which went well.
            spec: Its pool.

        Returns:
            The estimate of such steps.
        """
        step = attempt.step
        estimate = self.estimate_of(step.agent, step.name)
        if isinstance(step.call, LlmCall):
            estimate.output_tokens.add(usage.output_tokens)
            self._correct(usage, attempt, spec, step.call)
        elif spec.tool_curve is not None:
            estimate.cpu_s.add(usage.cpu_s * spec.tool_curve.relative_speed)
            # The start is on the pool's curve already; counted here, it would be paid for twice.
            other_s = usage.wall_s - usage.cpu_s - spec.tool_curve.start_s
            estimate.other_s.add(max(0.0, other_s))
            estimate.memory_bytes.add(usage.memory_bytes)
        return estimate

    def _correct(self, usage: Usage, attempt: OpenAttempt, spec: PoolSpec, call: LlmCall) -> None:
        curve = spec.llm_curves.get(call.model)
        if curve is None:
            # The pool was changed while the attempt ran, and serves the model by this name no more.
            return
        uncached = float(usage.input_tokens - usage.cached_tokens)
        predicted_s = prefill_s(curve.ttft_floor_s, curve.prefill_s_per_token, uncached)
        predicted_s += usage.output_tokens * shared_itl_s(
            curve.itl_base_s,
            curve.itl_slope_s,
            float(attempt.concurrency),
            attempt.neighbours_share_s,
        )
        if predicted_s > 0.0 and usage.wall_s > 0.0:
            ratio = math.log(usage.wall_s / predicted_s)
            ratio = max(-_MAX_LOG_CORRECTION, min(_MAX_LOG_CORRECTION, ratio))
            spread = self._log_correction[attempt.pool]
            spread.add(ratio)
            self.correction[attempt.pool] = math.exp(spread.mean.value)
            off = max(LEAST_ERROR_FRAC, 2.0 * spread.deviation)
            self.error_frac[attempt.pool] = min(MOST_ERROR_FRAC, off)
