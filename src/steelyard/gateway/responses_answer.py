"""The answer to /v1/responses on its way to the client: streamed or whole, relayed or rendered."""

from typing import Any

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step
from steelyard.errors import SteelyardBugError, SteelyardError
from steelyard.gateway.exchange import Exchange, json_lines
from steelyard.gateway.generation import steelyard_object
from steelyard.gateway.headers import cost_line, decision_lines
from steelyard.gateway.responses_items import new_id
from steelyard.gateway.responses_render import ResponseRenderer
from steelyard.gateway.responses_wire import ResponsesRequest
from steelyard.pools.backend import LlmChunk, ReadFlow, RelayedAnswer
from steelyard.runtime.dispatcher import Settlement

_Json = dict[str, Any]
_JSON = json_lines([])


class ResponseAnswer:
    """Sends one response; see `steelyard.runtime.relaying.AnswerTarget`.

    Args:
        exchange: Where it goes.
        asked: The request.
        step: The step that the request became.
        created_s: Whole seconds since 1970.
    """

    def __init__(
        self, exchange: Exchange, asked: ResponsesRequest, step: Step, created_s: int
    ) -> None:
        self._exchange = exchange
        self._asked = asked
        self._step = step
        self._created_s = created_s
        self._decision: Decision | None = None
        self._settlement: Settlement | None = None
        self._relayed: RelayedAnswer | None = None
        self._renderer = self._new_renderer()

    @property
    def begun(self) -> bool:
        """Whether something was sent, so that a retry would be noticed."""
        return bool(self._exchange.status)

    def placed(self, decision: Decision) -> None:
        """The step starts there; what a failed attempt said before does not count."""
        self._decision = decision
        self._exchange.pool = decision.pool
        if self._exchange.key is not None:
            self._exchange.key.placed()
        self._renderer = self._new_renderer()

    async def sets_aside(self) -> bool:
        """Is there money for a second attempt beside the first? It is set aside then."""
        return self._exchange.key is None or await self._exchange.key.sets_aside()

    def flows(self, flow: ReadFlow | None) -> None:
        """A client that reads too slowly holds the upstream back by this."""
        self._exchange.flow = flow

    def events(self, data: bytes, tokens: int) -> None:
        """Send events as they are."""
        if self._exchange.status:
            self._exchange.write(data)
        else:
            self._exchange.begin_stream(self._lines(), data)

    async def chunk(self, chunk: LlmChunk) -> None:
        """Send or keep the next piece."""
        events = self._renderer.chunk(chunk)
        if not self._asked.stream or not events:
            return
        self.events(events, 1)
        await self._exchange.drain()

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left."""
        self._relayed = answer

    def settled(self, settlement: Settlement) -> None:
        """Usage and cost are on the books."""
        self._settlement = settlement

    def fail(self, error: SteelyardError) -> None:
        """End a stream that has begun."""
        if not self._exchange.finished:
            self._exchange.end(self._renderer.failed(error))

    def finish(self) -> _Json:
        """Send the end of the answer.

        Returns:
            The response object.
        """
        settlement = self._settlement
        if settlement is None:
            raise SteelyardBugError(f"step {self._step.key} ended without a settlement")
        if self._relayed is not None:
            return self._finish_relayed(self._relayed, settlement)
        response, last = self._renderer.finish(settlement)
        if self._asked.stream:
            self._end_stream(last)
        else:
            self._respond(msgspec.json.encode(response), settlement)
        return response

    def _finish_relayed(self, relayed: RelayedAnswer, settlement: Settlement) -> _Json:
        if not self._asked.stream:
            self._respond(relayed.body, settlement)
            return msgspec.json.decode(relayed.body, type=_Json)
        last = relayed.last_event.rstrip()
        if last.endswith(b"}"):
            # Put in front of the brace that ends the event: every byte of the upstream stays.
            cost = msgspec.json.encode(steelyard_object(settlement))
            last = last[:-1] + b',"steelyard":' + cost + b"}"
        self._end_stream(last + b"\n\n")
        lines = relayed.last_event.splitlines()
        data = b"".join(line[5:] for line in lines if line.startswith(b"data:"))
        response: _Json = msgspec.json.decode(data, type=_Json)["response"]
        return response

    def _end_stream(self, last: bytes) -> None:
        if not self.begun:
            self._exchange.begin_stream(self._lines())
        self._exchange.end(last)

    def _respond(self, body: bytes, settlement: Settlement) -> None:
        lines = _JSON + self._lines() + cost_line(settlement.cost_usd)
        self._exchange.respond(200, body, lines)

    def _lines(self) -> bytes:
        if self._decision is None:
            raise SteelyardBugError(f"step {self._step.key} was answered before it was placed")
        return decision_lines(self._step.task_id, self._decision)

    def _new_renderer(self) -> ResponseRenderer:
        return ResponseRenderer(new_id("resp"), self._created_s, self._asked)
