"""What supervisor and engine child say to each other: the messages on the two pipes."""

import asyncio
from typing import BinaryIO

import msgspec

from steelyard.errors import PoolProtocolError
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.framing import read_frame, receive_frame


class Load(msgspec.Struct, frozen=True, tag="load"):
    """First frame to the child: which model to serve, and how."""

    model_path: str
    context_tokens: int
    settings: EngineSettings


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Start a request; `request_id` is never used twice."""

    request_id: int
    request: LlmRequest


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Turn texts into vectors; `request_id` is never used twice."""

    request_id: int
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Drop a request; unknown ids are ignored, since it may just have ended."""

    request_id: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The model is loaded.

    Attributes:
        load_s: How long that took.
        context_tokens: Longest prompt plus output that it takes.
        cache_tokens: Tokens whose keys and values it holds.
    """

    load_s: float
    context_tokens: int = 0
    cache_tokens: int = 0


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded; starting again would not help."""

    message: str


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The request's first token is computed."""

    request_id: int


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """The next piece of an answer."""

    request_id: int
    chunk: LlmChunk


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    """The vectors of a request's texts, one after another.

    Attributes:
        request_id: The request.
        values: Little-endian 32-bit floats.
        count: How many vectors they are.
        input_tokens: Tokens of all texts together.
    """

    request_id: int
    values: bytes
    count: int
    input_tokens: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request ended as it should."""

    request_id: int


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """The request is wrong."""

    request_id: int
    message: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Sign of life from the child's working thread, with its load."""

    running: int
    waiting: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The engine raised and cannot be trusted any more: restart it."""

    message: str


ToChild = Load | Submit | Embed | Cancel
FromChild = Ready | LoadFailed | Started | Piece | Vectors | Done | Rejected | Beat | Broken


def read_to_child(pipe: BinaryIO) -> ToChild | None:
    """Wait for the supervisor's next frame; None when the pipe was closed."""
    body = read_frame(pipe)
    return None if body is None else msgspec.msgpack.decode(body, type=ToChild)


async def read_from_child(pipe: asyncio.StreamReader) -> FromChild | None:
    """Wait for the child's next frame; None when the pipe was closed.

    Raises:
        PoolProtocolError: The bytes are no frame.
    """
    try:
        body = await receive_frame(pipe)
        return None if body is None else msgspec.msgpack.decode(body, type=FromChild)
    except msgspec.DecodeError as error:
        raise PoolProtocolError(f"The engine child sent no frame: {error}.") from error
