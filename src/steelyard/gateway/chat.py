"""/v1/chat/completions: from its wire to a request, and from chunks back to its wire."""

from typing import Any

from steelyard.gateway.generation import (
    AnswerHead,
    AnswerParts,
    Generation,
    raw_logprobs,
    steelyard_object,
    usage_object,
    vendor_fields,
)
from steelyard.gateway.prefix import chat_prefixes
from steelyard.gateway.wire import ChatRequest, parse_request
from steelyard.pools.backend import LlmChunk, LlmRequest, TokenLogprob, ToolCallDelta
from steelyard.pools.dialects import schema_of
from steelyard.runtime.dispatcher import Settlement


def parse_chat(document: dict[str, Any]) -> Generation:
    """Which generation does the body of a chat request ask for?

    Args:
        document: The request body.

    Returns:
        The generation.

    Raises:
        RequestError: A field is wrong.
    """
    asked = parse_request(document, ChatRequest)
    asked.check()
    messages: list[dict[str, Any]] = document["messages"]
    tools: list[dict[str, Any]] = document.get("tools") or []
    wanted = asked.response_format
    schema = None
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is not None:
        schema = wanted.json_schema.schema
    elif wanted is None:
        schema = schema_of(document)
    request = LlmRequest(
        kind="chat",
        model=asked.model,
        messages=messages,
        max_output_tokens=asked.max_completion_tokens or asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=asked.stops,
        n=asked.n or 1,
        logprobs=bool(asked.logprobs),
        top_logprobs=asked.top_logprobs or 0,
        json_schema=schema,
        json_object=wanted is not None and wanted.type == "json_object",
        tools=tools,
        tool_choice=asked.tool_choice,
        raw_body=document,
    )
    return Generation(
        request=request,
        prefixes=chat_prefixes(asked.model, messages, tools),
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
        unusual=asked.unusual,
    )


class ChatRenderer:
    """Writes answers as `chat.completion` and `chat.completion.chunk` objects.

    Args:
        head: What every object repeats.
        include_usage: Whether a usage chunk will follow; every chunk then has a null `usage`.
    """

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def chunk(self, chunk: LlmChunk) -> dict[str, Any] | None:
        """The stream object for a piece; None when it holds nothing for the client."""
        delta: dict[str, Any] = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.tool_calls:
            delta["tool_calls"] = [_tool_call_delta(call) for call in chunk.tool_calls]
        delta.update(vendor_fields(chunk))
        if not delta and chunk.finish_reason is None and not chunk.logprobs:
            return None
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            delta = {"role": "assistant", **({} if chunk.tool_calls else {"content": ""}), **delta}
        choice = {
            "index": chunk.index,
            "delta": delta,
            "logprobs": raw_logprobs(chunk) or _logprobs(chunk.logprobs),
            "finish_reason": chunk.finish_reason,
        }
        return self._object("chat.completion.chunk", [choice], usage=None)

    def usage_chunk(self, settlement: Settlement) -> dict[str, Any]:
        """The last stream object, with what the answer used and cost."""
        sent = self._object("chat.completion.chunk", [], usage=usage_object(settlement.usage))
        return {**sent, "steelyard": steelyard_object(settlement)}

    def answer(self, parts: list[AnswerParts], settlement: Settlement) -> dict[str, Any]:
        """The whole answer as one object."""
        choices = [_choice(index, part) for index, part in enumerate(parts)]
        sent = self._object("chat.completion", choices, usage=None)
        return {
            **sent,
            "usage": usage_object(settlement.usage),
            "steelyard": steelyard_object(settlement),
        }

    def _object(
        self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        head = self._head
        sent: dict[str, Any] = {
            "id": head.id,
            "object": kind,
            "created": head.created,
            "model": head.model,
            "choices": choices,
        }
        if self._include_usage:
            sent["usage"] = usage
        return sent


def _choice(index: int, part: AnswerParts) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": part.text, "refusal": None}
    if part.tool_calls:
        message["content"] = part.text or None
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in part.tool_calls
        ]
    message.update(part.vendor_fields)
    return {
        "index": index,
        "message": message,
        "logprobs": part.raw_logprobs or _logprobs(part.logprobs),
        "finish_reason": part.finish_reason,
    }


def _tool_call_delta(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    if call.name:
        function["name"] = call.name
    sent: dict[str, Any] = {"index": call.index, "function": function}
    if call.id:
        sent["id"] = call.id
        sent["type"] = "function"
    return sent


def _logprobs(logprobs: "tuple[TokenLogprob, ...] | list[TokenLogprob]") -> dict[str, Any] | None:
    if not logprobs:
        return None
    content = [
        {
            "token": one.token,
            "logprob": one.logprob,
            "bytes": list(one.token.encode()),
            "top_logprobs": [],
        }
        for one in logprobs
    ]
    return {"content": content, "refusal": None}
