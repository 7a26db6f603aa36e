"""An upstream's answer on its way to the client: read along, handed on as it is.

Nothing is written anew but the event with the usage, to which the cost is added, so vendor fields
and the upstream's own pieces reach the client untouched. What is read along: the usage, the reasons
to end, errors, and how much text came, for the books of an upstream that reports no usage.
"""

import asyncio
import re
from typing import Protocol, cast

import msgspec

from steelyard.errors import PoolError, PoolProtocolError, PoolUnavailableError
from steelyard.pools.backend import (
    JsonObject,
    LlmUsage,
    ReadFlow,
    RelayedAnswer,
    RelayRequest,
    RelayTarget,
)
from steelyard.pools.endpoint_errors import ErrorReader, status_in
from steelyard.pools.http_connection import Headers
from steelyard.pools.relay_wire import RelayedChoice, as_strict_json, read_object
from steelyard.pools.sse import MAX_EVENT_BYTES
from steelyard.pools.wire import counted_tokens, counted_usage, parse_object, parse_usage

MAX_ERROR_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_DONE = b"[DONE]"
# How long an answer that is whole waits for the end of its message, so that the connection can be
# used again.
_CLOSING_S = 1.0
_PLAIN = frozenset((b"", b"identity"))
_READ_LENGTHS = frozenset(map(len, (b"content-type", b"retry-after", b"content-encoding")))
# Other servers than OpenAI's end lines with CR LF.
_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class Finished(Protocol):
    """Told once how an answer ended: a future, or whoever wants no task to wait for one."""

    def done(self) -> bool:
        """Was it told?"""
        ...

    def set_result(self, result: None, /) -> None:
        """The answer is whole."""
        ...

    def set_exception(self, exception: PoolError, /) -> None:
        """It will not come."""
        ...


class _Over:
    """Stands for a future that was waited for: with its error it would hold who waited."""

    def done(self) -> bool:
        return True

    def set_result(self, result: None, /) -> None:
        pass

    def set_exception(self, exception: PoolError, /) -> None:
        pass


class WholeBody:
    """Collects an answer of bounded length; `finished` ends with it or fails."""

    # Of the class until they are set.
    status = 0
    is_stream = False
    _retry_after: str | None = None
    _size_bytes = 0
    _response_headers: Headers | None = None
    _is_over = False
    _closing: asyncio.TimerHandle | None = None

    def __init__(self, errors: ErrorReader, finished: Finished | None = None) -> None:
        self.finished: Finished = finished or asyncio.get_running_loop().create_future()
        self._errors = errors
        self._parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        """All of it."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    @property
    def response_headers(self) -> dict[str, str]:
        """Its headers, in the spelling of the server."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._response_headers or ()
        }

    def flows(self, flow: ReadFlow | None) -> None:
        """A whole body of bounded length is never held back."""

    def head(self, status: int, headers: Headers) -> None:
        """Status and headers are here."""
        self.status = status
        self._response_headers = headers
        for spelled, value in headers:
            if len(spelled) not in _READ_LENGTHS:
                continue
            name = spelled.lower()
            if name == b"content-type":
                self.is_stream = status == 200 and value.lower().startswith(b"text/event-stream")
            elif name == b"retry-after":
                self._retry_after = value.decode("latin-1")
            elif name == b"content-encoding" and status == 200 and value.lower() not in _PLAIN:
                told = value[:20].decode("latin-1")
                self.fail(PoolProtocolError(f"The upstream encoded its answer ({told!r}) unasked."))

    def data(self, piece: bytes) -> None:
        """Keep a piece; of an error, no more than can be shown."""
        self._size_bytes += len(piece)
        if self.status != 200 and self._size_bytes > MAX_ERROR_BYTES:
            return
        if self._size_bytes > MAX_ANSWER_BYTES:
            self.fail(
                PoolProtocolError(f"The upstream's answer has over {MAX_ANSWER_BYTES} bytes.")
            )
            return
        self._parts.append(piece)

    def done(self, error: PoolError | None) -> None:
        """The answer is whole, or will not come; nothing that comes after its last event counts."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._is_over:
            error = None
        elif error is None and self.status != 200:
            error = self._errors.read(self.status, self.body, self._retry_after)
        if self.finished.done():
            return
        if error is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def end_stream(self) -> None:
        """Its last event is here; servers that leave the connection open are not waited for."""
        self._is_over = True
        if self._closing is None and not self.finished.done():
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(_CLOSING_S, self._stop_waiting)

    def _stop_waiting(self) -> None:
        self._closing = None
        if not self.finished.done():
            self.finished.set_result(None)

    def renew(self) -> None:
        """Nothing has come, and the request is sent again; after `ended`."""
        self.finished = asyncio.get_running_loop().create_future()

    async def ended(self) -> None:
        """Wait until the answer is whole; where `finished` is a future.

        Raises:
            PoolError: It will not come.
        """
        try:
            await cast("asyncio.Future[None]", self.finished)
        finally:
            self.finished = _Over()

    def fail(self, error: PoolError) -> None:
        """The answer is of no use; whoever waits for it cuts the connection."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def raise_errors_in(self, raw: JsonObject) -> None:
        """Raise what a 200 with an `error` in it tells."""
        if raw.get("error"):
            raise self._errors.read(status_in(raw), msgspec.json.encode(raw), None)


class Relay(WholeBody):
    """Hands an answer on.

    Args:
        asked: What is asked.
        target: Takes a stream's events.
        errors: Reads the upstream's errors.
    """

    _rest = b""
    _texts = 0
    _text_bytes = 0
    _told_tokens = 0
    _has_end = False
    _usage: LlmUsage | None = None
    _usage_event = b""

    def __init__(
        self,
        asked: RelayRequest,
        target: RelayTarget,
        errors: ErrorReader,
        finished: Finished | None = None,
    ) -> None:
        super().__init__(errors, finished)
        self._asked = asked
        self._target = target
        # Whether the client takes the answer piece by piece.
        self.hands_on = asked.stream

    def flows(self, flow: ReadFlow | None) -> None:
        """The client holds the upstream back by this."""
        self._target.flows(flow)

    def data(self, piece: bytes) -> None:
        """Hand on what is whole now."""
        if not self.is_stream or not self.hands_on:
            super().data(piece)
            return
        if self._is_over or self.finished.done():
            return
        try:
            self._take(piece)
        except PoolError as error:
            self.fail(error)

    def answer(self) -> RelayedAnswer:
        """What is left to be sent, once `finished` is done.

        Raises:
            PoolError: The answer is not whole, or unreadable.
        """
        body = b""
        if not self.is_stream or not self.hands_on:
            body = self.body
            self._read(body)
            if self.hands_on:
                raise PoolProtocolError("The upstream sent a whole answer, not the stream asked.")
        elif self._rest.strip() and not self._is_over:
            # Servers forget the last newline.
            self._take(b"\n\n")
        if not self._has_end:
            raise PoolUnavailableError("The upstream ended its answer without a finish_reason.")
        usage = self._usage
        if usage is None:
            usage = counted_usage(self._asked.request, self._texts, self._text_bytes)
        event = parse_object(self._usage_event) if self._usage_event else None
        return RelayedAnswer(usage=usage, body=body, usage_event=event)

    def _take(self, piece: bytes) -> None:
        """Hand on the whole events in some bytes, as they are; keep the rest for later."""
        if self._rest:
            piece = self._rest + piece
        if b"\r" in piece:
            ends = [match.end() for match in _BOUNDARY.finditer(piece)]
            cut = ends[-1] if ends else 0
            events = _BOUNDARY.split(piece[:cut])
        else:
            cut = piece.rfind(b"\n\n") + 2
            if cut == 1:
                cut = 0
            events = piece[:cut].split(b"\n\n")
        self._rest = piece[cut:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise PoolProtocolError(f"The upstream sent an event of over {MAX_EVENT_BYTES} bytes.")
        texts, held = self._texts, 0
        kept: list[bytes] = []
        for event in events:
            if not event:
                continue
            if self._is_over or not self._event(event):
                held += 1
            else:
                kept.append(event)
        if kept:
            whole = piece[:cut] if not held else b"\n\n".join(kept) + b"\n\n"
            # Of an answer that has begun, one token at the least, whatever the upstream counts.
            least = int(self._texts > texts and not self._told_tokens)
            more = max(self._tokens() - self._told_tokens, least)
            self._told_tokens += more
            self._target.events(whole, more)

    def _tokens(self) -> int:
        """How many tokens have come, as the whole answer would be counted?"""
        if self._usage is not None:
            return self._usage.output_tokens
        return counted_tokens(self._texts, self._text_bytes)

    def _event(self, event: bytes) -> bool:
        """Read one event along; whether it is to be sent on now."""
        if event.startswith(b"data: ") and b"\n" not in event:
            data = event[6:]
        else:
            lines = [line.strip(b"\r") for line in re.split(rb"[\r\n]+", event)]
            data = b"\n".join(
                line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")
            )
            if not data:
                return True
        if data == _DONE:
            self.end_stream()
            return False
        held = self._usage_event
        return self._read(data) or self._usage_event is held

    def _read(self, data: bytes) -> bool:
        """Read an object along; whether it has choices."""
        try:
            told = read_object(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            shown, data = data[:80], as_strict_json(data)
            if not data:
                msg = f"The upstream sent no answer: {error}; {shown!r}."
                raise PoolProtocolError(msg) from error
            told = read_object(data)
        if told.error:
            self.raise_errors_in(parse_object(data))
        if told.usage:
            self._usage = parse_usage({"usage": told.usage})
        if not told.choices:
            if told.usage:
                self._usage_event = data
            return False
        for choice in told.choices:
            self._read_choice(choice)
        return True

    def _read_choice(self, choice: RelayedChoice) -> None:
        if choice.finish_reason is not None:
            self._has_end = True
        said = choice.delta or choice.message
        if said is None:
            self._count(choice.text)
            return
        self._count(said.content)
        self._count(said.reasoning_content or said.reasoning)
        if said.tool_calls:
            self._texts += 1
            self._text_bytes += len(msgspec.json.encode(said.tool_calls))

    def _count(self, text: object) -> None:
        if isinstance(text, str) and text:
            self._texts += 1
            self._text_bytes += len(text) if text.isascii() else len(text.encode())
