"""The OpenAI wire, as far as pools speak it: request bodies out, chunks in."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from steelyard.errors import PoolProtocolError, PoolRejectedError
from steelyard.pools.backend import (
    FinishReason,
    JsonObject,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    RelayRequest,
    TokenLogprob,
    ToolCallDelta,
)

_FINISH_REASONS: frozenset[str] = frozenset(("stop", "length", "tool_calls", "content_filter"))
_BYTES_PER_TOKEN = 4
# Far above every context; a count beyond it would be learned and spoil all later placements.
_MAX_USAGE_TOKENS = 2**40
# Letters of names that are written as escapes, as no program does without a reason.
_ESCAPED_NAME = re.compile(rb"\\u00(?:5[fF]|[46][1-9a-fA-F]|[57][0-9aA])")
# Fields that Steelyard reads itself and an upstream must read alike.
_READ_FIELDS = (
    *(b'"model"', b'"stream"', b'"stream_options"', b'"max_tokens"', b'"max_completion_tokens"'),
    *(b'"n"', b'"messages"', b'"prompt"', b'"tools"'),
)


def request_body(request: LlmRequest) -> bytes:
    """Which body asks an OpenAI-compatible server for the request, as a stream with usage?

    The caller's own body wins over the request's fields, so nothing in it is lost.

    Raises:
        PoolRejectedError: The request is not JSON.
    """
    body = dict(request.raw_body) if request.raw_body else body_of_fields(request)
    body["model"] = request.model
    body["stream"] = True
    options = body.get("stream_options")
    # A copy: the caller's own object stays as it is.
    body["stream_options"] = {
        **(options if isinstance(options, dict) else {}),
        "include_usage": True,
    }
    try:
        return msgspec.json.encode(body)
    except (TypeError, RecursionError, msgspec.EncodeError) as error:
        raise PoolRejectedError(f"The request is not JSON: {error}.") from error


def relayed_body(asked: RelayRequest) -> bytes:
    """Which body asks for the same as the caller's, with usage at the end of a stream?

    The caller's bytes wherever they say one thing only: a stream without `stream_options` gets
    some in front, and a body that names a field twice is written anew, since two readers may
    take different ones of the two.
    """
    body = asked.body
    plain = names_once(body)
    if plain and not asked.stream:
        return body
    options = asked.request.raw_body.get("stream_options")
    if plain and isinstance(options, dict) and options.get("include_usage") is True:  # pyright: ignore[reportUnknownMemberType]
        return body
    if plain and options is None and b'"stream_options"' not in body:
        return b'{"stream_options":{"include_usage":true},' + body.lstrip()[1:]
    document = dict(asked.request.raw_body)
    if asked.stream:
        document["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return msgspec.json.encode(document)


def names_once(body: bytes, fields: Sequence[bytes] = _READ_FIELDS) -> bool:
    r"""Is each of these fields surely named at most once?

    Args:
        body: A JSON object.
        fields: Names, with their quotes.

    >>> names_once(b'{"n":1,"n":2}'), names_once(b'{"n":1,"\\u006e":2}')
    (False, False)
    """
    if b"\\u00" in body and _ESCAPED_NAME.search(body):
        return False
    count = body.count
    for name in fields:  # noqa: SIM110 - a generator costs as much as the search
        if count(name) > 1:
            return False
    return True


def body_of_fields(request: LlmRequest) -> JsonObject:
    """Which body asks for the request where there is none of the caller's?"""
    body: JsonObject = (
        {"messages": request.messages} if request.kind == "chat" else {"prompt": request.prompt}
    )
    optional: JsonObject = {
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "n": request.n if request.n != 1 else None,
        "tools": request.tools or None,
        "tool_choice": request.tool_choice if request.tools else None,
        "response_format": _response_format(request),
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    if request.logprobs and request.kind == "chat":
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs
    elif request.logprobs:
        body["logprobs"] = request.top_logprobs
    return body


def _response_format(request: LlmRequest) -> JsonObject | None:
    if request.json_schema is not None:
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": request.json_schema},
        }
    return {"type": "json_object"} if request.json_object else None


def parse_object(text: str | bytes) -> JsonObject:
    """Which JSON object is the text?

    Raises:
        PoolProtocolError: It is none.
    """
    try:
        return msgspec.json.decode(text, type=JsonObject)
    except (msgspec.DecodeError, RecursionError) as error:
        shown = text[:80]
        raise PoolProtocolError(f"The upstream sent no JSON object: {error}; {shown!r}.") from error


def parse_chunks(raw: JsonObject) -> list[LlmChunk]:
    """Which pieces of answers are in an upstream object, streamed or whole?

    Returns:
        One chunk per choice; the first one carries `raw`. Without choices a single empty chunk.

    Raises:
        PoolProtocolError: The object has another shape.
    """
    try:
        choices: list[Any] = raw.get("choices") or []
        chunks = [_chunk(choice) for choice in choices] or [LlmChunk()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PoolProtocolError(
            f"The upstream's choices have another shape ({type(error).__name__}: {error})."
        ) from error
    return [msgspec.structs.replace(chunks[0], raw=raw), *chunks[1:]]


def thoughts_in(raw: JsonObject) -> list[str]:
    """Which thoughts are in an object that `parse_chunks` takes? They are paid for as texts are.

    >>> thoughts_in({"choices": [{"delta": {"reasoning_content": "So"}}, {"text": "no"}]})
    ['So']
    """
    choices: list[JsonObject] = raw.get("choices") or []
    deltas: list[JsonObject] = [one.get("delta") or one.get("message") or {} for one in choices]
    # Some servers write them under both names.
    thoughts = [one.get("reasoning_content") or one.get("reasoning") for one in deltas]
    return [one for one in thoughts if isinstance(one, str)]


def _chunk(choice: JsonObject) -> LlmChunk:
    delta: JsonObject = choice.get("delta") or choice.get("message") or {}
    text = delta.get("content") or choice.get("text") or ""
    return LlmChunk(
        index=int(choice.get("index") or 0),
        text=str(text),
        tool_calls=tuple(
            _tool_call(call, position)
            for position, call in enumerate(delta.get("tool_calls") or ())
        ),
        finish_reason=_finish_reason(choice.get("finish_reason")),
        logprobs=_logprobs(choice.get("logprobs")),
    )


def _tool_call(call: JsonObject, position: int) -> ToolCallDelta:
    function: JsonObject = call.get("function") or {}
    return ToolCallDelta(
        index=int(call.get("index", position)),
        id=call.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def _finish_reason(reason: object) -> FinishReason | None:
    if reason is None:
        return None
    if reason == "function_call":
        return "tool_calls"
    # Servers invent reasons of their own; the raw chunk still has them.
    return reason if reason in _FINISH_REASONS else "stop"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def _logprobs(logprobs: JsonObject | None) -> tuple[TokenLogprob, ...]:
    if not logprobs:
        return ()
    content = logprobs.get("content")
    if content is None:
        tokens, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
        pairs = zip(tokens, values, strict=False)
        return tuple(TokenLogprob(token=str(t), logprob=float(v or 0.0)) for t, v in pairs)
    return tuple(
        TokenLogprob(token=str(entry["token"]), logprob=float(entry["logprob"]))
        for entry in content
    )


def parse_usage(raw: JsonObject) -> LlmUsage | None:
    """Which usage does an upstream object report? None when it reports none.

    Raises:
        PoolProtocolError: The usage has another shape, or a count that no call can have.
    """
    usage = raw.get("usage")
    if not usage:
        return None
    try:
        details: JsonObject | None = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if details else None
        input_tokens = _count(usage, "prompt_tokens")
        return LlmUsage(
            input_tokens=input_tokens,
            # Some servers count them beside the prompt; here they are a part of it.
            cached_tokens=min(_count(details, "cached_tokens"), input_tokens) if details else 0,
            output_tokens=_count(usage, "completion_tokens"),
            cached_tokens_measured=cached is not None,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise PoolProtocolError(f"The upstream's usage has another shape: {error}.") from error


def _count(usage: JsonObject, name: str) -> int:
    tokens = int(usage.get(name) or 0)
    if not 0 <= tokens <= _MAX_USAGE_TOKENS:
        raise ValueError(f"{name} is {tokens:.6g}")
    return tokens


def estimated_usage(request: LlmRequest, output_texts: list[str]) -> LlmUsage:
    """About which usage did a call have whose upstream reports none?

    Four bytes of UTF-8 per token, the rule of thumb that OpenAI gives for English
    (https://help.openai.com/en/articles/4936856), and at least one token per streamed piece.

    Args:
        request: What was asked.
        output_texts: The streamed pieces of text.
    """
    return counted_usage(request, len(output_texts), len("".join(output_texts).encode()))


def counted_usage(request: LlmRequest, pieces: int, output_bytes: int) -> LlmUsage:
    """As `estimated_usage`, from the number of pieces and their bytes."""
    prompt = request.prompt.encode() + msgspec.json.encode([request.messages, request.tools])
    return LlmUsage(
        input_tokens=-(-len(prompt) // _BYTES_PER_TOKEN),
        cached_tokens=0,
        output_tokens=counted_tokens(pieces, output_bytes),
        cached_tokens_measured=False,
        measured=False,
    )


def counted_tokens(pieces: int, output_bytes: int) -> int:
    """About how many tokens are some pieces of text? At least one each: many send several in one.

    >>> counted_tokens(3, 9), counted_tokens(3, 90)
    (3, 23)
    """
    return max(pieces, -(-output_bytes // _BYTES_PER_TOKEN))
