"""Frames on a pipe: four bytes of length, then msgpack. Used between a pool and its children."""

import asyncio
import struct
from typing import BinaryIO

import msgspec

from steelyard.errors import PoolProtocolError

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 64 * 1024 * 1024


def pack_frame(message: msgspec.Struct) -> bytes:
    """Which bytes carry the message?

    Raises:
        PoolProtocolError: The message is larger than a frame may be.
    """
    return frame_of(msgspec.msgpack.encode(message))


def frame_of(body: bytes) -> bytes:
    """Which bytes carry a message that is encoded already?

    Raises:
        PoolProtocolError: It is larger than a frame may be.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise PoolProtocolError(
            f"A message of {len(body)} bytes does not fit a frame of {MAX_FRAME_BYTES}."
        )
    return _LENGTH.pack(len(body)) + body


def read_frame(pipe: BinaryIO) -> bytes | None:
    """Wait for the next frame's body; None when the pipe was closed."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return pipe.read(_LENGTH.unpack(head)[0])


async def receive_frame(pipe: asyncio.StreamReader) -> bytes | None:
    """Wait for the next frame's body; None when the pipe was closed.

    Raises:
        PoolProtocolError: The announced length is out of range.
    """
    try:
        (length,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise PoolProtocolError(f"A child process announced a frame of {length} bytes.")
        return await pipe.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
