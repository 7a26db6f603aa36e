"""Who takes an answer that is handed on as it comes, and how it is counted on the way."""

from collections.abc import Callable
from typing import Protocol

from steelyard.domain.decision import Decision
from steelyard.pools.backend import LlmChunk, LlmUsage, ReadFlow, RelayedAnswer, RelayTarget
from steelyard.runtime.meter import AttemptMeter


class AnswerTarget(RelayTarget, Protocol):
    """Takes all that `Dispatcher.relay_llm` says."""

    @property
    def begun(self) -> bool:
        """Whether something was sent, so that a retry would be noticed."""
        ...

    def placed(self, decision: Decision) -> None:
        """The step starts there; said again for every retry, and what came before is void.

        Of two attempts at once, the second one is told of when it answers first.
        """
        ...

    async def sets_aside(self) -> bool:
        """May a second attempt run beside the first? What it may cost is set aside then."""
        ...

    async def chunk(self, chunk: LlmChunk) -> None:
        """The next piece, from a pool that does not write OpenAI's wire itself."""
        ...

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left."""
        ...


class MeteredTarget:
    """Counts what is handed on.

    Args:
        target: Takes it.
        meter: Counts it.
        now_s: The log's clock.
    """

    __slots__ = ("_meter", "_now_s", "_target", "begun")

    def __init__(
        self, target: RelayTarget, meter: AttemptMeter, now_s: Callable[[], float]
    ) -> None:
        self._target = target
        self._meter = meter
        self._now_s = now_s
        self.begun = False

    def flows(self, flow: ReadFlow | None) -> None:
        """Hold the upstream back by this."""
        self._target.flows(flow)

    def events(self, data: bytes, tokens: int) -> None:
        """Count and hand on."""
        self.begun = True
        if tokens:
            self._meter.pieces(self._now_s(), tokens)
        self._target.events(data, tokens)

    def used(self, usage: LlmUsage) -> None:
        """The answer is whole."""
        self._meter.piece(self._now_s(), usage, has_text=False)
