"""An answer that is handed on whole: rankings and embeddings, which nobody streams."""

from steelyard.domain.decision import Decision
from steelyard.errors import SteelyardBugError
from steelyard.gateway.exchange import Exchange
from steelyard.pools.backend import LlmChunk, ReadFlow, RelayedAnswer
from steelyard.runtime.dispatcher import Settlement


class WholeAnswer:
    """Takes an answer that is handed on; see `steelyard.runtime.relaying.AnswerTarget`.

    Args:
        exchange: The request.

    Attributes:
        body: The answer, once it is here.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._decision: Decision | None = None
        self.body = b""

    @property
    def begun(self) -> bool:
        """Nothing is sent before all of it is here."""
        return False

    @property
    def placement(self) -> Decision:
        """Where it was made."""
        if self._decision is None:
            raise SteelyardBugError("a request was answered before it was placed")
        return self._decision

    def placed(self, decision: Decision) -> None:
        """The step starts there."""
        self._decision = decision
        if self._exchange.key is not None:
            self._exchange.key.placed()

    async def sets_aside(self) -> bool:
        """Is there money for a second attempt beside the first? It is set aside then."""
        return self._exchange.key is None or await self._exchange.key.sets_aside()

    def flows(self, flow: ReadFlow | None) -> None:
        """A whole answer is never held back."""

    def events(self, data: bytes, tokens: int) -> None:
        """Nothing of it is streamed."""

    async def chunk(self, chunk: LlmChunk) -> None:
        """It has no chunks."""

    def relayed(self, answer: RelayedAnswer) -> None:
        """The answer is here."""
        self.body = answer.body

    def settled(self, settlement: Settlement) -> None:
        """Usage and cost are on the books."""
