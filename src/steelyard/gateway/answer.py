"""The answer of one generation on its way to the client: streamed or whole, relayed or rendered."""

from collections.abc import Callable

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.task import Step
from steelyard.errors import SteelyardBugError
from steelyard.gateway import sse
from steelyard.gateway.chat import ChatRenderer
from steelyard.gateway.completions import CompletionRenderer
from steelyard.gateway.exchange import Exchange, json_lines
from steelyard.gateway.generation import (
    AnswerHead,
    AnswerParts,
    Generation,
    Renderer,
    collect,
    steelyard_object,
)
from steelyard.gateway.headers import cost_line, decision_lines
from steelyard.pools.backend import LlmChunk, ReadFlow, RelayedAnswer
from steelyard.runtime.dispatcher import Settlement

_JSON = json_lines([])
_ID_PREFIXES = {"chat": "chatcmpl", "completion": "cmpl"}


class Answer:
    """Sends the answer of one generation.

    Bytes of an upstream that speaks OpenAI's wire are handed on as they are; chunks of other
    pools are rendered.

    Args:
        exchange: Where it goes.
        generation: What was asked.
        step: The step that the request became.
        now_s: Seconds since 1970.
    """

    # Of the class until they are set.
    _decision: Decision | None = None
    _settlement: Settlement | None = None
    _relayed: RelayedAnswer | None = None
    _made: Renderer | None = None

    def __init__(
        self, exchange: Exchange, generation: Generation, step: Step, now_s: Callable[[], float]
    ) -> None:
        self._exchange = exchange
        self._generation = generation
        self._step = step
        self._now_s = now_s
        self._parts: list[AnswerParts] = []

    @property
    def step(self) -> Step:
        """The step that the request became."""
        return self._step

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
        self._parts.clear()

    async def sets_aside(self) -> bool:
        """Is there money for a second attempt beside the first? It is set aside then."""
        return self._exchange.key is None or await self._exchange.key.sets_aside()

    def flows(self, flow: ReadFlow | None) -> None:
        """A client that reads too slowly holds the upstream back by this."""
        self._exchange.flow = flow

    def events(self, data: bytes, tokens: int) -> None:
        """Send events as the upstream wrote them."""
        exchange = self._exchange
        if exchange.status:
            exchange.write(data)
        else:
            # Only now: until the first piece an error can still have its own HTTP status.
            exchange.begin_stream(self._lines(), data)

    async def chunk(self, chunk: LlmChunk) -> None:
        """Send or keep the next piece."""
        if not self._generation.stream:
            collect(self._parts, chunk)
            return
        payload = self._renderer().chunk(chunk)
        if payload is not None:
            self.events(sse.event(payload), 1)
            await self._exchange.drain()

    def relayed(self, answer: RelayedAnswer) -> None:
        """All events were handed on; this is what is left."""
        self._relayed = answer

    def settled(self, settlement: Settlement) -> None:
        """Usage and cost are on the books."""
        self._settlement = settlement

    def finish(self) -> None:
        """Send the end of the answer."""
        settlement, exchange = self._settlement, self._exchange
        if settlement is None or self._decision is None:
            raise SteelyardBugError(f"step {self._step.key} ended without a settlement")
        if not self._generation.stream:
            lines = _JSON + self._lines() + cost_line(settlement.cost_usd)
            exchange.respond(200, self._body(settlement), lines)
            return
        last = b""
        if self._generation.include_usage:
            last = self._usage_event(settlement)
        if not exchange.status:
            exchange.begin_stream(self._lines(), self._nothing())
        exchange.end(last + sse.DONE)

    def _nothing(self) -> bytes:
        """The event of an answer that said nothing: clients expect a role, and a reason to end."""
        payload = self._renderer().chunk(LlmChunk(finish_reason="stop"))
        return b"" if payload is None else sse.event(payload)

    def _body(self, settlement: Settlement) -> bytes:
        if self._relayed is not None:
            return self._relayed.body
        return msgspec.json.encode(self._renderer().answer(self._parts, settlement))

    def _usage_event(self, settlement: Settlement) -> bytes:
        if self._relayed is None or self._relayed.usage_event is None:
            return sse.event(self._renderer().usage_chunk(settlement))
        sent = {**self._relayed.usage_event, "steelyard": steelyard_object(settlement)}
        return sse.event(sent)

    def _lines(self) -> bytes:
        if self._decision is None:
            raise SteelyardBugError(f"step {self._step.key} was answered before it was placed")
        return decision_lines(self._step.task_id, self._decision)

    def _renderer(self) -> Renderer:
        if self._made is None:
            generation, step = self._generation, self._step
            kind = generation.request.kind
            head = AnswerHead(
                id=f"{_ID_PREFIXES[kind]}-{step.task_id}-{step.step_id}",
                created=int(self._now_s()),
                model=generation.request.model,
            )
            with_usage = generation.stream and generation.include_usage
            renderer = ChatRenderer if kind == "chat" else CompletionRenderer
            self._made = renderer(head, include_usage=with_usage)
        return self._made
