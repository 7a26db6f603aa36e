"""/v1/embeddings: from its wire to texts, and from vectors back to its wire."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.generation import steelyard_object
from steelyard.gateway.wire import EmbeddingsRequest, parse_request
from steelyard.pools.backend import Embeddings
from steelyard.runtime.dispatcher import Settlement


def parse_embeddings(document: dict[str, Any]) -> EmbeddingsRequest:
    """Which texts does the body of an embeddings request hold?

    Args:
        document: The request body.

    Returns:
        The request.

    Raises:
        RequestError: A field is wrong, or `dimensions` is asked for.
    """
    asked = parse_request(document, EmbeddingsRequest)
    if asked.dimensions is not None:
        msg = f"dimensions = {asked.dimensions} is not supported; cut the vectors yourself"
        raise RequestError(msg, param="dimensions")
    return asked


def input_texts(asked: EmbeddingsRequest) -> list[str]:
    """The texts to embed, in order."""
    return [asked.input] if isinstance(asked.input, str) else asked.input


def embeddings_object(
    asked: EmbeddingsRequest, vectors: Embeddings, settlement: Settlement
) -> dict[str, Any]:
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
