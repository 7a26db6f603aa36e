"""What is usual for a step? Running means per (agent, step name), learned from the log."""

import math

import msgspec

# Below this many samples the mean is plain; from then on old samples fade.
_PLAIN_SAMPLES = 20
_ANY_DEPTH = -1


class RunningMean(msgspec.Struct):
    """A mean that follows slow change.

    The first 20 samples weigh the same; afterwards each new one weighs 1/20, so that an agent
    whose prompts change is followed within a few dozen steps.

    >>> mean = RunningMean()
    >>> for value in (1.0, 2.0, 6.0):
    ...     mean.add(value)
    >>> mean.value
    3.0
    """

    value: float = 0.0
    count: int = 0

    def add(self, sample: float) -> None:
        """Take one more sample into account."""
        count = self.count = self.count + 1
        # Not `min`: called half a dozen times per request, it would be the dearest part of it.
        over = count if count < _PLAIN_SAMPLES else _PLAIN_SAMPLES  # noqa: FURB136
        self.value += (sample - self.value) / over


class RunningSpread(msgspec.Struct):
    """Mean and standard deviation that follow slow change, as `RunningMean` does.

    >>> spread = RunningSpread()
    >>> for value in (1.0, 3.0):
    ...     spread.add(value)
    >>> spread.high
    3.0
    """

    mean: RunningMean = msgspec.field(default_factory=RunningMean)
    square: RunningMean = msgspec.field(default_factory=RunningMean)

    def add(self, sample: float) -> None:
        """Take one more sample into account."""
        self.mean.add(sample)
        self.square.add(sample * sample)

    @property
    def high(self) -> float:
        """Mean plus one standard deviation: about five in six samples of a bell are below."""
        return self.mean.value + self.deviation

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        variance = self.square.value - self.mean.value * self.mean.value
        return math.sqrt(max(0.0, variance))


class StepExpectation(msgspec.Struct, frozen=True, kw_only=True):
    """What a step is expected to use.

    Attributes:
        output_tokens: Length of the answer; the caller's limit until a step was seen.
        cpu_s: CPU seconds on the reference core.
        other_s: Seconds a tool waits beside its CPU time.
        memory_bytes: Peak memory of a tool.
        remaining_s: Seconds from the end of this step to the end of its task, mean plus one
            standard deviation; 0 until seen.
        remaining_known: Whether such a task has ended, so that `remaining_s` means something.
        remaining_deviation_s: Its standard deviation.
    """

    output_tokens: float
    cpu_s: float
    other_s: float
    memory_bytes: float
    remaining_s: float
    remaining_known: bool
    remaining_deviation_s: float = 0.0


class StepEstimate(msgspec.Struct):
    """Running means of one (agent, step name)."""

    output_tokens: RunningMean
    cpu_s: RunningMean
    other_s: RunningMean
    memory_bytes: RunningMean
    remaining_s: dict[int, RunningSpread]

    @classmethod
    def unseen(cls) -> "StepEstimate":
        """An estimate without samples."""
        return cls(RunningMean(), RunningMean(), RunningMean(), RunningMean(), {})

    def add_remaining(self, step_id: int, remaining_s: float) -> None:
        """A task ended so long after its step of this number.

        Agents repeat step names, so that what is left depends on how far a task is: numbers are
        told apart by powers of two.
        """
        for depth in (step_id.bit_length(), _ANY_DEPTH):
            spread = self.remaining_s.get(depth)
            if spread is None:
                spread = self.remaining_s[depth] = RunningSpread()
            spread.add(remaining_s)

    def usual(self, step_id: int, max_output_tokens: float) -> tuple[float, float, bool, float]:
        """Output tokens, seconds that remain, whether they are known, and their deviation.

        See `expectation`.
        """
        output = self.output_tokens
        tokens = max_output_tokens
        if output.count > 0 and output.value < tokens:
            tokens = output.value
        remaining = self.remaining_s.get(step_id.bit_length(), self.remaining_s.get(_ANY_DEPTH))
        if remaining is None:
            return tokens, 0.0, False, 0.0
        return tokens, remaining.high, True, remaining.deviation

    def expectation(
        self, step_id: int, max_output_tokens: float, memory_bytes: float
    ) -> StepExpectation:
        """What is the next such step expected to use?

        Args:
            step_id: Its number in the task.
            max_output_tokens: The caller's limit; expected until a length was seen, so that a
                budget is never overspent by ignorance.
            memory_bytes: Memory the tool declares; expected until a peak was seen.

        Returns:
            The expectation.
        """
        output_tokens, remaining_s, known, deviation_s = self.usual(step_id, max_output_tokens)
        return StepExpectation(
            output_tokens=output_tokens,
            cpu_s=self.cpu_s.value,
            other_s=self.other_s.value,
            memory_bytes=self.memory_bytes.value if self.memory_bytes.count else memory_bytes,
            remaining_s=remaining_s,
            remaining_known=known,
            remaining_deviation_s=deviation_s,
        )
