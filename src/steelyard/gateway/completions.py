"""/v1/completions: from its wire to a request, and from chunks back to its wire."""

from typing import Any

from steelyard.gateway.generation import (
    AnswerHead,
    AnswerParts,
    Generation,
    raw_logprobs,
    steelyard_object,
    usage_object,
)
from steelyard.gateway.prefix import text_prefixes
from steelyard.gateway.wire import CompletionRequest, parse_request
from steelyard.pools.backend import LlmChunk, LlmRequest, TokenLogprob
from steelyard.runtime.dispatcher import Settlement

# What OpenAI generates when a completion request sets no limit.
_DEFAULT_MAX_TOKENS = 16


def parse_completion(document: dict[str, Any]) -> Generation:
    """Which generation does the body of a completion request ask for?

    Args:
        document: The request body.

    Returns:
        The generation.

    Raises:
        RequestError: A field is wrong.
    """
    asked = parse_request(document, CompletionRequest)
    asked.check()
    request = LlmRequest(
        kind="completion",
        model=asked.model,
        prompt=asked.text,
        max_output_tokens=asked.max_tokens or _DEFAULT_MAX_TOKENS,
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        stop=asked.stops,
        n=asked.n or 1,
        logprobs=asked.logprobs is not None,
        top_logprobs=asked.logprobs or 0,
        raw_body=document,
    )
    return Generation(
        request=request,
        prefixes=text_prefixes(asked.model, asked.text),
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
    )


class CompletionRenderer:
    """Writes answers as `text_completion` objects.

    Args:
        head: What every object repeats.
        include_usage: Whether a usage chunk will follow; every chunk then has a null `usage`.
    """

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage

    def chunk(self, chunk: LlmChunk) -> dict[str, Any] | None:
        """The stream object for a piece; None when it holds nothing for the client."""
        if not chunk.text and chunk.finish_reason is None and not chunk.logprobs:
            return None
        choice = {
            "index": chunk.index,
            "text": chunk.text,
            "logprobs": raw_logprobs(chunk) or _logprobs(chunk.logprobs),
            "finish_reason": chunk.finish_reason,
        }
        return self._object([choice], usage=None)

    def usage_chunk(self, settlement: Settlement) -> dict[str, Any]:
        """The last stream object, with what the answer used and cost."""
        sent = self._object([], usage=usage_object(settlement.usage))
        return {**sent, "steelyard": steelyard_object(settlement)}

    def answer(self, parts: list[AnswerParts], settlement: Settlement) -> dict[str, Any]:
        """The whole answer as one object."""
        choices = [
            {
                "index": index,
                "text": part.text,
                "logprobs": part.raw_logprobs or _logprobs(part.logprobs),
                "finish_reason": part.finish_reason,
            }
            for index, part in enumerate(parts)
        ]
        return {
            **self._object(choices, usage=None),
            "usage": usage_object(settlement.usage),
            "steelyard": steelyard_object(settlement),
        }

    def _object(
        self, choices: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        head = self._head
        sent: dict[str, Any] = {
            "id": head.id,
            "object": "text_completion",
            "created": head.created,
            "model": head.model,
            "choices": choices,
        }
        if self._include_usage:
            sent["usage"] = usage
        return sent


def _logprobs(logprobs: "tuple[TokenLogprob, ...] | list[TokenLogprob]") -> dict[str, Any] | None:
    if not logprobs:
        return None
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": None,
        "text_offset": [],
    }
