"""Relays of other APIs than chat: what is read along of an answer, and what is held back."""

import re
from typing import Any

import msgspec

from steelyard.errors import PoolProtocolError
from steelyard.pools.backend import JsonObject, RelayedAnswer, RelayRequest, RelayTarget
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.relay import Relay
from steelyard.pools.wire import parse_object, parse_usage

_LAST_EVENTS = frozenset(["response.completed", "response.incomplete"])
_LINES = re.compile(rb"\r\n|\r|\n")


class _Response(msgspec.Struct):
    usage: Any = None


class _Told(msgspec.Struct):
    """A response object, or an event of its stream."""

    type: Any = None
    status: Any = None
    usage: Any = None
    delta: Any = None
    response: _Response | None = None


_decoder = msgspec.json.Decoder(_Told)


def relay_for(asked: RelayRequest, target: RelayTarget, errors: ErrorReader) -> Relay:
    """Which relay reads the answer along?

    Args:
        asked: What is asked.
        target: Takes a stream's events.
        errors: Reads the upstream's errors.
    """
    kinds = {
        "/responses": ResponsesRelay,
        "/rerank": RerankRelay,
        "/embeddings": EmbeddingsRelay,
    }
    return kinds.get(asked.path, Relay)(asked, target, errors)


class ResponsesRelay(Relay):
    """Hands a response on; its last event is held back until the books are on disk."""

    _last_event = b""

    def answer(self) -> RelayedAnswer:
        """What is left to be sent, once `finished` is done.

        Raises:
            PoolError: The answer is not whole, or unreadable.
        """
        return msgspec.structs.replace(super().answer(), last_event=self._last_event)

    def _event(self, event: bytes) -> bool:
        lines = _LINES.split(event)
        data = b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))
        if not data:
            return True
        if data == b"[DONE]":
            self.end_stream()
            return False
        if not self._read(data):
            return True
        self._last_event = event + b"\n\n"
        self.end_stream()
        return False

    def _read(self, data: bytes) -> bool:
        """Read an object along; whether it is the last one."""
        try:
            told = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            shown = data[:80]
            raise PoolProtocolError(f"The upstream sent no answer: {error}; {shown!r}.") from error
        is_event = told.response is not None or told.type is not None
        if told.type in {"error", "response.failed"} or told.status == "failed":
            self._raise_error(parse_object(data))
        if isinstance(told.delta, str) and told.delta:
            self._texts += 1
            self._text_bytes += len(told.delta.encode())
        if is_event and told.type not in _LAST_EVENTS:
            return False
        if is_event and told.response is None:
            raise PoolProtocolError(f"The upstream sent {told.type} without a response.")
        self._has_end = True
        usage = told.usage if told.response is None else told.response.usage
        if isinstance(usage, dict):
            self._usage = parse_usage({"usage": _as_chat_usage(usage)})  # pyright: ignore[reportUnknownArgumentType]
        return True

    def _raise_error(self, raw: JsonObject) -> None:
        response: Any = raw.get("response")
        held: JsonObject = response if isinstance(response, dict) else raw  # pyright: ignore[reportUnknownVariableType]
        message = raw.get("message") or "the upstream tells no reason"
        error = held.get("error") or {"message": message, "code": raw.get("code")}
        self.raise_errors_in({"error": error})


class RerankRelay(Relay):
    """Hands a ranking on: always whole, and of another shape at every server."""

    def _read(self, data: bytes) -> bool:
        raw = parse_object(data)
        self.raise_errors_in(raw)
        if not isinstance(raw.get("results"), list):
            raise PoolProtocolError("The upstream's ranking has no results.")
        self._has_end = True
        usage = raw.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if total is not None:
            # Jina and vLLM tell the total alone; a ranking generates nothing.
            self._usage = parse_usage({"usage": {"prompt_tokens": total}})
        return True


class _Embedded(msgspec.Struct):
    """What is read along of embeddings; the vectors are not."""

    data: list[msgspec.Raw] | None = None
    usage: Any = None
    error: Any = None


_embedded = msgspec.json.Decoder(_Embedded)


class EmbeddingsRelay(Relay):
    """Hands vectors on: always whole."""

    def _read(self, data: bytes) -> bool:
        try:
            told = _embedded.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            shown = data[:80]
            raise PoolProtocolError(f"The upstream sent no vectors: {error}; {shown!r}.") from error
        if told.error:
            self.raise_errors_in(parse_object(data))
        if told.data is None:
            raise PoolProtocolError("The upstream's embeddings have no data.")
        self._has_end = True
        if told.usage:
            usage = parse_usage({"usage": told.usage})
            # What some servers count as an answer, none is.
            self._usage = None if usage is None else msgspec.structs.replace(usage, output_tokens=0)
        return True


def _as_chat_usage(usage: JsonObject) -> JsonObject:
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
    }
