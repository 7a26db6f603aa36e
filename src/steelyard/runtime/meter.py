"""What an attempt used and cost, as it is recorded at its end."""

from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    AttemptOutcome,
    JsonValue,
    Usage,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.errors import SteelyardBugError, SteelyardError
from steelyard.perf.cost import attempt_usd
from steelyard.pools.backend import LlmUsage, ToolOutcome


class AttemptMeter:
    """Counts while an attempt runs, so that its end can be recorded whenever it comes.

    Args:
        step: The step.
        spec: The pool that runs it.

    Attributes:
        result: The answer, where it is journalled.
    """

    # Of the class until they are set: most of them never are.
    _started_s: float | None = None
    _first_token_s: float | None = None
    _pieces = 0
    _llm_usage: LlmUsage | None = None
    _tool_outcome: ToolOutcome | None = None
    _finished: AttemptFinished | None = None
    result: JsonValue = None
    # Of a prompt whose answer another attempt gave first; None of all others.
    _hedged_cached_tokens: int | None = None

    def __init__(self, step: Step, spec: PoolSpec) -> None:
        self._step = step
        self._spec = spec

    @property
    def fence(self) -> int | None:
        """Number of the lease under which the attempt runs; None outside of durable tasks."""
        return self._step.fence

    @property
    def finished(self) -> AttemptFinished:
        """The event that ended the attempt."""
        if self._finished is None:
            raise SteelyardBugError(f"attempt of step {self._step.key} is settled before its end")
        return self._finished

    def start(self, now_s: float) -> None:
        """The attempt has started."""
        self._started_s = now_s

    def piece(self, now_s: float, usage: LlmUsage | None, *, has_text: bool) -> None:
        """A chunk of the answer has come.

        Args:
            now_s: Time on the log's clock.
            usage: Token counts, where the chunk carries them.
            has_text: Whether it holds text or a tool call.
        """
        if has_text:
            self._pieces += 1
            if self._first_token_s is None:
                self._first_token_s = now_s
        if usage is not None:
            self._llm_usage = usage

    def pieces(self, now_s: float, count: int) -> None:
        """Pieces of about so many tokens have come."""
        self._pieces += count
        if self._first_token_s is None:
            self._first_token_s = now_s

    def used(self, usage: LlmUsage) -> None:
        """The answer is whole, and used so much."""
        self._llm_usage = usage

    def hedge_away(self, cached_tokens: int) -> None:
        """Another attempt at the step answered first; so much of the prompt was thought cached."""
        self._hedged_cached_tokens = cached_tokens

    def tool_done(self, outcome: ToolOutcome) -> None:
        """The tool has returned."""
        self._tool_outcome = outcome

    def usage(self, now_s: float) -> Usage:
        """What has been used up to now?

        Args:
            now_s: Time on the log's clock.

        Returns:
            The engine's counts where it gave them. An attempt cut short has none: then the prompt
            counts once the first token came, or at once where it was hedged away (it was being
            read, and a hedge must not look free), and every piece as a token, as estimates.
        """
        wall_s = 0.0 if self._started_s is None else now_s - self._started_s
        if self._tool_outcome is not None:
            return Usage(
                cpu_s=self._tool_outcome.cpu_s,
                memory_bytes=self._tool_outcome.max_memory_bytes,
                wall_s=wall_s,
            )
        first_s: float | None = None
        if self._first_token_s is not None and self._started_s is not None:
            first_s = self._first_token_s - self._started_s
        counted = self._llm_usage
        if counted is not None:
            return Usage(
                input_tokens=counted.input_tokens,
                cached_tokens=counted.cached_tokens,
                output_tokens=counted.output_tokens,
                counting="measured" if counted.measured else "estimated",
                cached_counting="measured" if counted.cached_tokens_measured else "estimated",
                wall_s=wall_s,
                start_to_first_token_s=first_s,
            )
        call = self._step.call
        cached = self._hedged_cached_tokens
        read = self._pieces > 0 or (cached is not None and self._started_s is not None)
        prompt = call.input_tokens if isinstance(call, LlmCall) and read else 0
        return Usage(
            input_tokens=prompt,
            cached_tokens=min(prompt, cached or 0),
            output_tokens=self._pieces,
            counting="estimated",
            cached_counting="estimated",
            wall_s=wall_s,
            start_to_first_token_s=first_s,
        )

    def finish(
        self, now_s: float, outcome: AttemptOutcome, error: SteelyardError | None = None
    ) -> AttemptFinished:
        """The event that ends the attempt.

        Args:
            now_s: Time on the log's clock.
            outcome: How it ended.
            error: Why it failed.

        Returns:
            The event, with usage, cost, and `result` where it went well. One that was hedged away
            ends as cancelled, whatever it came to.
        """
        code, message = ("", "") if error is None else (error.code, str(error))
        if self._hedged_cached_tokens is not None:
            outcome, code = "cancelled", HEDGED_AWAY
            message = "another attempt at the step answered first"
        usage = self.usage(now_s)
        # A step that never started has used nothing, not even the share of a replica's time that
        # every request takes.
        started = self._started_s is not None
        cost_usd = attempt_usd(self._spec, self._step, usage) if started else 0.0
        self._finished = AttemptFinished(
            t_s=now_s,
            task_id=self._step.task_id,
            step_id=self._step.step_id,
            attempt=self._step.attempt,
            outcome=outcome,
            usage=usage,
            cost_usd=cost_usd,
            error_code=code,
            error=message,
            result=self.result if outcome == "ok" else None,
        )
        return self._finished
