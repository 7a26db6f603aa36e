"""The short way of a request: no name, deadline or budget, and an upstream that speaks our wire.

It is answered in callbacks alone, without a task of the event loop: placed and sent in the turn
that read its last byte, handed on as it comes, written down as one event, ended in the turn that
learns that the log is on disk. Whatever is out of the ordinary (a queue, a refusal, an upstream
that fails, no free connection) goes the way of all other requests, from its beginning or from its
second attempt on.
"""

import asyncio
from typing import Protocol

from steelyard.domain.task import Step
from steelyard.errors import PoolError
from steelyard.gateway.answer import Answer
from steelyard.gateway.exchange import Exchange
from steelyard.pools.backend import ReadFlow, RelayedAnswer, RelayRequest
from steelyard.runtime.settlement import Settlement
from steelyard.runtime.whole_requests import WholeRequest


class QuickEnds(Protocol):
    """What becomes of a request at its end."""

    def quick_done(self, quick: "QuickRequest") -> None:
        """It was answered."""
        ...

    def quick_failed(self, quick: "QuickRequest", error: BaseException) -> None:
        """It failed for good; the client is to be told."""
        ...

    def quick_retry(self, quick: "QuickRequest", error: PoolError) -> None:
        """Its first attempt failed, and is recorded; a task is to see what can be done."""
        ...


class QuickRequest:
    """One request on the short way; it stands where the task would that answers it.

    Args:
        exchange: The request.
        asked: What to ask the model.
        answer: Sends what comes.
        ends: Told of its end.
    """

    __slots__ = ("_ends", "answer", "asked", "exchange", "whole")

    def __init__(
        self, exchange: Exchange, asked: RelayRequest, answer: Answer, ends: QuickEnds
    ) -> None:
        self.exchange = exchange
        self.asked = asked
        self.answer = answer
        self.whole: WholeRequest | None = None
        self._ends = ends

    @property
    def step(self) -> Step | None:
        """Its step, once it is under way."""
        return None if self.whole is None else self.whole.step

    def cancel(self, msg: str = "") -> None:
        """Nobody wants the answer, or it took too long, or the server stops: as of a task."""
        del msg
        whole, self.whole = self.whole, None
        if whole is None:
            return
        try:
            whole.cancel()
        except Exception as error:  # noqa: BLE001 - a gateway request's boundary
            self._ends.quick_failed(self, error)
            return
        self._ends.quick_failed(self, asyncio.CancelledError())

    # ------------------------------------------------------ WholeTarget

    def flows(self, flow: ReadFlow | None) -> None:
        """A client that reads too slowly holds the upstream back by this."""
        self.answer.flows(flow)

    def events(self, data: bytes, tokens: int) -> None:
        """Send events as the upstream wrote them."""
        self.answer.events(data, tokens)

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left."""
        self.answer.flows(None)
        self.answer.relayed(answer)

    def settled(self, settlement: Settlement) -> None:
        """Usage and cost are on disk: send the end."""
        self.answer.settled(settlement)
        try:
            self.answer.finish()
        except Exception as error:  # noqa: BLE001 - a gateway request's boundary
            self._ends.quick_failed(self, error)
            return
        # It holds this one; see `Exchange.answered_by`.
        self.whole = None
        self._ends.quick_done(self)

    def broke(self, error: BaseException, *, recorded: bool) -> None:
        """It failed, now or at the log."""
        self.answer.flows(None)
        whole, self.whole = self.whole, None
        if recorded or whole is None or not isinstance(error, PoolError):
            self._ends.quick_failed(self, error)
            return
        try:
            whole.fail(error)
        except Exception as broken:  # noqa: BLE001 - a gateway request's boundary
            self._ends.quick_failed(self, broken)
            return
        self._ends.quick_retry(self, error)
