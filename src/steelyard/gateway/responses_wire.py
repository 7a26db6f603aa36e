"""The wire of /v1/responses: requests, checked, and which of their fields a chat can hold.

Field names and meanings: OpenAI's API reference, https://platform.openai.com/docs/api-reference/
responses/create, and the types of the `openai` package 3.54 (2026-11).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from steelyard.gateway.errors_http import RequestError

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Id = Annotated[str, Meta(min_length=1, max_length=256)]
_Metadata = Annotated[dict[str, str], Meta(max_length=16)]

# What only a server with state or tools of its own can do.
_REFUSED = (
    ("conversation", "no conversations are kept; use previous_response_id"),
    ("prompt", "no prompt templates are kept; send instructions and input"),
    ("context_management", "nothing is compacted here; shorten the input"),
    ("moderation", "nothing is moderated here; leave it out"),
    ("image", "no images are made here; leave it out"),
)


class TextFormat(msgspec.Struct, frozen=True):
    """Which form the text must have."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """How the text is written."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(msgspec.Struct, frozen=True):
    """How much the model thinks."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /v1/responses."""

    model: _Name
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    max_tool_calls: int | None = None
    metadata: _Metadata | None = None
    previous_response_id: _Id | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def items(self) -> list[dict[str, Any]]:
        """The input as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return self.input

    @property
    def logprobs(self) -> bool:
        """Are log-probabilities wanted?"""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())


def check_background(document: dict[str, Any]) -> None:
    """Refuse an answer that comes later, of every pool: nobody would fetch it, or book its cost.

    Args:
        document: The body of a request.

    Raises:
        RequestError: It asks for one.
    """
    if document.get("background"):
        msg = "background is not supported: answers are made while the client waits; leave it out"
        raise RequestError(msg, param="background")


def check_for_chat(asked: ResponsesRequest, document: dict[str, Any]) -> None:
    """Refuse what no pool behind chat completions can do.

    Args:
        asked: The request.
        document: Its body.

    Raises:
        RequestError: The message names the field and the cure.
    """
    for name, why in _REFUSED:
        if document.get(name):
            raise RequestError(f"{name} is not supported: {why}", param=name)
    if document.get("n") not in (None, 1):
        # A field of chats, which would be asked for more answers than a response can hold.
        raise RequestError("n is not supported: a response is one answer; leave it out", param="n")
    if asked.truncation == "auto":
        msg = 'truncation = "auto" is not supported: nothing is cut here; shorten the input'
        raise RequestError(msg, param="truncation")
    wanted = None if asked.text is None else asked.text.format
    if wanted is not None and wanted.type == "json_schema" and wanted.schema is None:
        msg = 'text.format.type = "json_schema" needs text.format.schema'
        raise RequestError(msg, param="text.format.schema")
