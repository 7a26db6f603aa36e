"""From chunks of a pool to a response object and its stream of typed events."""

from typing import Any

import msgspec

from steelyard.errors import SteelyardError
from steelyard.gateway.errors_http import error_response
from steelyard.gateway.generation import raw_logprobs, steelyard_object, vendor_fields
from steelyard.gateway.responses_items import Output
from steelyard.gateway.responses_wire import ResponsesRequest
from steelyard.pools.backend import FinishReason, LlmChunk
from steelyard.runtime.dispatcher import Settlement

_Json = dict[str, Any]

_encoder = msgspec.json.Encoder()
# Under these names engines tell a model's thoughts beside its answer.
_THOUGHTS = ("reasoning_content", "reasoning")
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "user"),
    *("temperature", "top_p", "safety_identifier", "prompt_cache_key", "service_tier"),
)


def event_bytes(event: _Json) -> bytes:
    r"""One typed event as it is sent.

    >>> event_bytes({"type": "response.created", "sequence_number": 0})
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n'
    """
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encoder.encode(event))


class ResponseRenderer:
    """Builds one response.

    Args:
        response_id: Its id.
        created_s: Whole seconds since 1970.
        asked: The request.
    """

    def __init__(self, response_id: str, created_s: int, asked: ResponsesRequest) -> None:
        self._head = _head(response_id, created_s, asked)
        self._output = Output()
        self._finish_reason: FinishReason = "stop"
        self._reasoning_tokens = 0
        self._sequence_number = 0

    def chunk(self, chunk: LlmChunk) -> bytes:
        """The stream's events up to a piece; none where it holds nothing for the client."""
        events: list[_Json] = []
        fields = vendor_fields(chunk)
        for name in _THOUGHTS:
            thought = fields.get(name)
            if isinstance(thought, str) and thought:
                events += self._output.text("reasoning", thought, [])
                break
        if chunk.text:
            events += self._output.text("message", chunk.text, _logprobs(chunk))
        for delta in chunk.tool_calls:
            events += self._output.call(delta)
        if chunk.finish_reason is not None:
            self._finish_reason = chunk.finish_reason
        self._count_thoughts(chunk)
        return self._encoded(events)

    def finish(self, settlement: Settlement) -> tuple[_Json, bytes]:
        """The answer is whole and on the books.

        Returns:
            The response object, and the last events of a stream.
        """
        reason = _INCOMPLETE.get(self._finish_reason)
        status = "completed" if reason is None else "incomplete"
        events = self._output.end(status)
        told = self._object(status)
        if reason is not None:
            told["incomplete_details"] = {"reason": reason}
        usage = settlement.usage
        told["usage"] = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        told["steelyard"] = steelyard_object(settlement)
        events.append({"type": f"response.{status}", "response": told})
        return told, self._encoded(events)

    def failed(self, error: SteelyardError) -> bytes:
        """The last event of a stream that broke off; clients of OpenAI raise it."""
        told: _Json = error_response(error).body["error"]
        names = ("code", "message", "param")
        event = {"type": "error", **{name: told[name] for name in names}, "error": told}
        # Not as the other ones: what has begun may be a stream that was handed on.
        return event_bytes({**event, "sequence_number": self._sequence_number})

    def _object(self, status: str) -> _Json:
        return {**self._head, "status": status, "output": self._output.items}

    def _begin(self) -> list[_Json]:
        """The first events, sent with the first piece: until then an error has its own status."""
        told: _Json = {**self._head, "status": "in_progress", "output": []}
        return [
            {"type": "response.created", "response": told},
            {"type": "response.in_progress", "response": told},
        ]

    def _encoded(self, events: list[_Json]) -> bytes:
        parts: list[bytes] = []
        if events and not self._sequence_number:
            events = [*self._begin(), *events]
        for event in events:
            event["sequence_number"] = self._sequence_number
            self._sequence_number += 1
            parts.append(event_bytes(event))
        return b"".join(parts)

    def _count_thoughts(self, chunk: LlmChunk) -> None:
        usage = (chunk.raw or {}).get("usage")
        details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        tokens = details.get("reasoning_tokens") if isinstance(details, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if isinstance(tokens, int) and tokens >= 0:
            self._reasoning_tokens = tokens


def _head(response_id: str, created_s: int, asked: ResponsesRequest) -> _Json:
    text = asked.text
    wanted = None if text is None else text.format
    head: _Json = {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "model": asked.model,
        "error": None,
        "incomplete_details": None,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "text": {"format": {"type": "text"} if wanted is None else _told(wanted)},
        "reasoning": {"effort": None, "summary": None}
        if asked.reasoning is None
        else msgspec.to_builtins(asked.reasoning),
        "truncation": asked.truncation or "disabled",
        "store": asked.store is not False,
        "background": False,
        "usage": None,
    }
    return head | {name: getattr(asked, name) for name in _ECHOED}


def _told(wanted: msgspec.Struct) -> _Json:
    fields: _Json = msgspec.to_builtins(wanted)
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _logprobs(chunk: LlmChunk) -> list[_Json]:
    given = (raw_logprobs(chunk) or {}).get("content")
    if isinstance(given, list):
        return given  # pyright: ignore[reportUnknownVariableType]
    return [
        {
            "token": one.token,
            "logprob": one.logprob,
            "bytes": list(one.token.encode()),
            "top_logprobs": [],
        }
        for one in chunk.logprobs
    ]
