"""Vectors as they are journalled: a third of the size of a list of numbers, and exact."""

import base64
import struct

import msgspec

from steelyard.domain.events import JsonValue
from steelyard.pools.backend import Embeddings


class JournalledVectors(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of a step's texts.

    Attributes:
        dimensions: Length of each.
        values: Base64 of little-endian 32-bit floats, one vector after another.
        input_tokens: Tokens of all texts together.
    """

    dimensions: int
    values: str
    input_tokens: int


def to_journal(embeddings: Embeddings) -> JsonValue:
    """The vectors as JSON values.

    >>> vectors = Embeddings(vectors=((0.5, 1.0), (2.0, -1.0)), input_tokens=3)
    >>> from_journal(to_journal(vectors)) == vectors
    True
    """
    rows = embeddings.vectors
    dimensions = len(rows[0]) if rows else 0
    packed = b"".join([struct.pack(f"<{dimensions}f", *row) for row in rows])
    return msgspec.to_builtins(
        JournalledVectors(
            dimensions=dimensions,
            values=base64.b64encode(packed).decode(),
            input_tokens=embeddings.input_tokens,
        )
    )


def from_journal(recorded: JsonValue) -> Embeddings:
    """The vectors that a journal holds."""
    found = msgspec.convert(recorded, JournalledVectors)
    rows = struct.iter_unpack(f"<{found.dimensions}f", base64.b64decode(found.values))
    return Embeddings(vectors=tuple(rows), input_tokens=found.input_tokens)
