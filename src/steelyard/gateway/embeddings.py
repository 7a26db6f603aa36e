"""/v1/embeddings: texts become vectors.

Where every pool that serves the model is an endpoint, request and answer are handed on as they are:
token ids, `dimensions` and a vendor's own fields (`input_type`, `truncate`, `task`) are its matter.
Elsewhere texts alone are taken.
"""

import base64
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from steelyard.gateway.embedding_steps import EmbeddingStep, answer_step
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import Exchange
from steelyard.gateway.generation import steelyard_object
from steelyard.gateway.headers import task_headers
from steelyard.gateway.hints import hints_of, with_session
from steelyard.gateway.keys_identity import keyed_headers
from steelyard.gateway.model_checks import check_model
from steelyard.gateway.prefix import chat_prefixes
from steelyard.gateway.settings import GatewaySettings
from steelyard.gateway.wire import EmbeddingsRequest, parse_request
from steelyard.pools.backend import Embeddings, RelayBackend
from steelyard.pools.wire import names_once
from steelyard.runtime.dispatcher import Dispatcher, Settlement

EMBEDDINGS_PATH = "/v1/embeddings"
_UPSTREAM_PATH = "/embeddings"
_Json = dict[str, Any]


class EmbeddingsDesk:
    """Answers /v1/embeddings.

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
            exchange: POST of /v1/embeddings.

        Raises:
            SteelyardError: What went wrong; nothing was sent then.
        """
        document = self._document(exchange)
        asked = parse_embeddings(document)
        check_model(self._dispatcher, asked.model, exchange.key)
        # The key first: a session that others name is a hint, and no reason to refuse.
        sent = keyed_headers(exchange.key, task_headers(exchange), asked.model)
        headers = with_session(sent, hints_of(exchange, document))
        # The log holds vectors, which an answer that is handed on need not have.
        native = sent.step_id is None and self._is_native(asked.model)
        plain = names_once(exchange.body, (b'"model"', b'"input"'))
        step = EmbeddingStep(
            name="embedding",
            model=asked.model,
            input_tokens=input_tokens(asked),
            texts=[] if native else input_texts(asked),
            path=_UPSTREAM_PATH if native else "",
            prompt=msgspec.json.encode(asked.input).decode() if native else "",
            body=exchange.body if plain else msgspec.json.encode(document),
        )
        tell = partial(embeddings_object, asked)
        await answer_step(exchange, self._dispatcher, self._settings, headers, step, tell)

    def _is_native(self, model: str) -> bool:
        """Can a request go out as it is, wherever the policy sends it?"""
        backends = self._dispatcher.backends(model)
        return bool(backends) and all(
            isinstance(one, RelayBackend) and one.relays(_UPSTREAM_PATH) for one in backends
        )


def parse_embeddings(document: _Json) -> EmbeddingsRequest:
    """What does the body of an embeddings request ask for?

    Args:
        document: The request body.

    Returns:
        The request.

    Raises:
        RequestError: A field is wrong.
    """
    asked = parse_request(document, EmbeddingsRequest)
    if isinstance(asked.input, list):
        kinds = {_kind(one) for one in asked.input}
        if len(kinds) > 1 or None in kinds:
            wrong = next((n for n, one in enumerate(asked.input) if _kind(one) is None), 0)
            msg = "input must be a text, a list of texts, token ids or a list of lists of them"
            raise RequestError(msg, param=f"input[{wrong}]")
    return asked


def _kind(value: object) -> type | None:
    """Is it a text, a token id, or a list of token ids? None for anything else."""
    if isinstance(value, list):
        ids: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        return list if ids and all(type(one) is int for one in ids) else None
    return type(value) if type(value) in {str, int} else None


def input_tokens(asked: EmbeddingsRequest) -> int:
    """About how many tokens does a request hold? As many as there are ids, where it has those."""
    given: list[Any] = [asked.input] if isinstance(asked.input, str) else asked.input
    if not isinstance(given[0], str):
        return sum(len(one) if isinstance(one, list) else 1 for one in given)  # pyright: ignore[reportUnknownArgumentType]
    messages: list[_Json] = [{"content": text} for text in given]
    return chat_prefixes(asked.model, messages, []).input_tokens


def input_texts(asked: EmbeddingsRequest) -> list[str]:
    """The texts to embed, in order.

    Raises:
        RequestError: The request has what an endpoint alone may know.
    """
    if asked.dimensions is not None:
        msg = f"dimensions = {asked.dimensions} is not supported here; cut the vectors yourself"
        raise RequestError(msg, param="dimensions")
    if isinstance(asked.input, str):
        return [asked.input]
    if not isinstance(asked.input[0], str):
        raise RequestError("input[0] is no text; token ids are not read here", param="input[0]")
    return asked.input


def embeddings_object(
    asked: EmbeddingsRequest, vectors: Embeddings, settlement: Settlement
) -> _Json:
    """The answer to an embeddings request.

    Args:
        asked: The request; it says how vectors are encoded.
        vectors: One per text.
        settlement: What they used and cost.

    Returns:
        The OpenAI object.
    """
    as_base64 = asked.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64_floats(vector) if as_base64 else vector,
        }
        for index, vector in enumerate(vectors.vectors)
    ]
    tokens = vectors.input_tokens
    return {
        "object": "list",
        "model": asked.model,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "steelyard": steelyard_object(settlement),
    }


def _base64_floats(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, which is what OpenAI's clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
