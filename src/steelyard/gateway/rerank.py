"""/v1/rerank: documents in the order in which they answer a query.

Where every pool that serves the model has the path, request and answer are handed on as they are,
in whatever shape (Cohere, Jina and vLLM agree on `model`, `query`, `documents`, `top_n` and
`results` with `index` and `relevance_score`: https://docs.cohere.com/reference/rerank,
https://jina.ai/reranker, https://docs.vllm.ai/en/latest/serving/openai_compatible_server/).

A model of embeddings on this machine ranks by cosine similarity of the embeddings. That is no
cross-encoder: query and document are never read together, so it ranks less well, and each answer
says so under `steelyard.scores`.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from steelyard.gateway.embedding_steps import EmbeddingStep, answer_step
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import Exchange
from steelyard.gateway.generation import steelyard_object
from steelyard.gateway.headers import task_headers
from steelyard.gateway.hints import hints_of, with_session
from steelyard.gateway.keys_identity import keyed_headers
from steelyard.gateway.model_checks import check_length, check_model
from steelyard.gateway.prefix import chat_prefixes
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.wire import parse_request
from steelyard.pools.backend import (
    Embeddings,
    LlmBackend,
    RelayBackend,
)
from steelyard.pools.wire import names_once
from steelyard.runtime.dispatcher import Dispatcher, Settlement

RERANK_PATH = "/v1/rerank"
_UPSTREAM_PATH = "/rerank"
_SCORES = "cosine similarity of sentence embeddings, not a cross-encoder"
_Json = dict[str, Any]


class RankedText(msgspec.Struct, frozen=True):
    """A document as an object."""

    text: str


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /v1/rerank."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    query: str
    documents: Annotated[list[str | RankedText], Meta(min_length=1, max_length=2047)]
    top_n: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents as texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class Rerank:
    """Answers /v1/rerank.

    Args:
        settings: The gateway's settings.
        dispatcher: Places and runs steps.
        document: Reads the body of a request.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        dispatcher: Dispatcher,
        document: Callable[[Exchange], _Json],
    ) -> None:
        self._settings = settings
        self._dispatcher = dispatcher
        self._document = document

    def change_settings(self, settings: GatewaySettings) -> None:
        """Answer later requests by these settings."""
        self._settings = settings

    async def create(self, exchange: Exchange) -> None:
        """Answer one request.

        Args:
            exchange: POST of /v1/rerank.

        Raises:
            SteelyardError: What went wrong; nothing was sent then.
        """
        document = self._document(exchange)
        asked = parse_request(document, RerankRequest)
        check_model(self._dispatcher, asked.model, exchange.key)
        native = self._is_native(asked.model)
        texts = [asked.query, *asked.texts]
        messages: list[_Json] = [{"content": text} for text in texts]
        length = chat_prefixes(asked.model, messages, []).input_tokens
        check_length(self._dispatcher, asked.model, length, "documents")
        # The key first: a session that others name is a hint, and no reason to refuse.
        sent = keyed_headers(exchange.key, task_headers(exchange), asked.model)
        headers = with_session(sent, hints_of(exchange, document))
        if headers.step_id is not None and native:
            msg = "a ranking of an endpoint is not journalled; leave Idempotency-Key out"
            raise RequestError(msg, param="Idempotency-Key")
        step = EmbeddingStep(
            name="rerank",
            model=asked.model,
            input_tokens=length,
            texts=texts,
            path=_UPSTREAM_PATH if native else "",
            prompt="\n".join(texts),
            body=_plain_body(exchange.body, document),
        )
        tell = partial(_ranked, asked)
        await answer_step(exchange, self._dispatcher, self._settings, headers, step, tell)

    def _is_native(self, model: str) -> bool:
        """Do all pools of the model have the path; or are all models of embeddings here?

        Raises:
            RequestError: Some can neither.
        """
        backends = self._dispatcher.backends(model)
        if backends and all(_has_path(one) for one in backends):
            return True
        if backends and all(_embeds_here(one) for one in backends):
            return False
        raise RequestError(
            f"{model[:80]!r} ranks nothing: not every one of its pools has rerank in its apis; "
            "ask a reranker, or a model of embeddings on this machine",
            param="model",
            code="model_not_supported",
        )


def ranking(asked: RerankRequest, vectors: Sequence[Sequence[float]]) -> _Json:
    """The answer of a model of embeddings.

    Args:
        asked: The request.
        vectors: One for the query, then one per document.

    Returns:
        The documents by falling cosine of the angle between their vector and the query's; equal
        ones in the order of the request.
    """
    query, *others = vectors
    scores = [_cosine(query, vector) for vector in others]
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    texts = asked.texts
    results: list[_Json] = []
    for index in order[: asked.top_n]:
        result: _Json = {"index": index, "relevance_score": scores[index]}
        if asked.return_documents is not False:
            result["document"] = {"text": texts[index]}
        results.append(result)
    return {"object": "list", "model": asked.model, "results": results}


def _ranked(asked: RerankRequest, vectors: Embeddings, settlement: Settlement) -> _Json:
    return {
        **ranking(asked, vectors.vectors),
        "usage": {"total_tokens": vectors.input_tokens},
        "steelyard": {**steelyard_object(settlement), "scores": _SCORES},
    }


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    length = math.hypot(*one) * math.hypot(*other)
    return math.fsum(map(operator.mul, one, other)) / length if length else 0.0


def _has_path(backend: LlmBackend) -> bool:
    return isinstance(backend, RelayBackend) and backend.relays(_UPSTREAM_PATH)


def _embeds_here(backend: LlmBackend) -> bool:
    return backend.supports_embeddings and not isinstance(backend, RelayBackend)


def _plain_body(body: bytes, document: _Json) -> bytes:
    """The caller's bytes, unless they name a field twice that we and the upstream read."""
    plain = names_once(body, (b'"model"', b'"query"', b'"documents"'))
    return body if plain else msgspec.json.encode(document)
