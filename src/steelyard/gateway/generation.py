"""A parsed request for text, and the pieces of its answer, whatever the endpoint."""

from typing import Any, Protocol

import msgspec

from steelyard.domain.events import Usage
from steelyard.gateway.prefix import Prefixes
from steelyard.pools.backend import FinishReason, LlmChunk, LlmRequest, TokenLogprob
from steelyard.runtime.dispatcher import Settlement

# Fields that are rendered from the chunk itself.
_OPENAI_FIELDS = frozenset(
    ["role", "content", "tool_calls", "refusal", "function_call", "logprobs", "finish_reason"]
)


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A request for text.

    Attributes:
        request: What the pool is asked.
        prefixes: Boundaries of the prompt.
        stream: Whether the answer is sent piece by piece.
        include_usage: Whether a stream ends with a usage chunk.
        unusual: The field, and its value, that endpoints alone may know; empty for none.
    """

    request: LlmRequest
    prefixes: Prefixes
    stream: bool
    include_usage: bool
    unusual: str = ""


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every object of one answer repeats.

    Attributes:
        id: Id of the answer.
        created: Whole seconds since 1970.
        model: Name of the model, as asked for.
    """

    id: str
    created: int
    model: str


class Renderer(Protocol):
    """Writes answers in the form of one OpenAI endpoint."""

    def chunk(self, chunk: LlmChunk) -> dict[str, Any] | None:
        """The stream object for a piece; None when it holds nothing for the client."""
        ...

    def usage_chunk(self, settlement: Settlement) -> dict[str, Any]:
        """The last stream object, with what the answer used and cost."""
        ...

    def answer(self, parts: list["AnswerParts"], settlement: Settlement) -> dict[str, Any]:
        """The whole answer as one object."""
        ...


class AnswerParts:
    """Collects one answer of a call, piece by piece."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason = "stop"
        self.logprobs: list[TokenLogprob] = []
        self.raw_logprobs: dict[str, Any] = {}
        self.vendor_fields: dict[str, Any] = {}
        self._pieces: list[str] = []
        self._tool_calls: dict[int, dict[str, str]] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def tool_calls(self) -> list[dict[str, str]]:
        """The tool calls so far: `id`, `name` and `arguments` of each."""
        return [self._tool_calls[index] for index in sorted(self._tool_calls)]

    def add(self, chunk: LlmChunk) -> None:
        """Take the next piece."""
        self._pieces.append(chunk.text)
        self.logprobs.extend(chunk.logprobs)
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
        for delta in chunk.tool_calls:
            call = self._tool_calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += delta.id
            call["name"] += delta.name
            call["arguments"] += delta.arguments
        for name, value in (raw_logprobs(chunk) or {}).items():
            if isinstance(value, list):
                self.raw_logprobs.setdefault(name, []).extend(value)
        for name, value in vendor_fields(chunk).items():
            before: Any = self.vendor_fields.get(name)
            if isinstance(before, str) and isinstance(value, str):
                self.vendor_fields[name] = before + value
            else:
                self.vendor_fields[name] = value


def collect(parts: list[AnswerParts], chunk: LlmChunk) -> None:
    """Add a piece to the answer that it belongs to.

    Args:
        parts: One per answer; extended where an index comes for the first time.
        chunk: The piece.
    """
    while len(parts) <= chunk.index:
        parts.append(AnswerParts())
    parts[chunk.index].add(chunk)


def vendor_fields(chunk: LlmChunk) -> dict[str, Any]:
    """What did the upstream put beside OpenAI's fields, such as `reasoning_content`?

    Args:
        chunk: A piece of an answer; its `raw` may hold several choices.

    Returns:
        The unknown fields of this choice's delta or message; texts are pieces to append.
    """
    choice = _raw_choice(chunk)
    delta: dict[str, Any] = choice.get("delta") or choice.get("message") or {}
    return {
        name: value
        for name, value in delta.items()
        if name not in _OPENAI_FIELDS and value is not None
    }


def raw_logprobs(chunk: LlmChunk) -> dict[str, Any] | None:
    """Which logprobs did the upstream send, alternatives and all? None where we render our own."""
    return _raw_choice(chunk).get("logprobs")


def _raw_choice(chunk: LlmChunk) -> dict[str, Any]:
    choices: list[dict[str, Any]] = (chunk.raw or {}).get("choices") or []
    for choice in choices:
        if choice.get("index", 0) == chunk.index:
            return choice
    return {}


def usage_object(usage: Usage) -> dict[str, Any]:
    """What was used, in the form of the OpenAI wire."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def steelyard_object(settlement: Settlement) -> dict[str, Any]:
    """What we add to an answer beside OpenAI's fields."""
    return {"cost_usd": settlement.cost_usd}
