"""A copy of a GGUF file whose 4-bit weights with an offset (Q4_1) are 8-bit ones (Q8_0).

OpenVINO GenAI 2026.4 reads Q4_1 with a loss, probably because it rounds the offset of each block to
a step of its scale: the perplexity of a text under SmolLM2-135M is 78 instead of 60. It reads the
same weights from Q8_0 without (benchmarks/engine_perplexity.py, docs/adr/0006). The formats are
those of ggml-org/ggml: docs/gguf.md and src/ggml-common.h.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import ConfigError
from steelyard.pools.engine.model import skip_entries

_Q4_1, _Q8_0 = 3, 8
_BLOCK = 32
_Q4_1_BYTES, _Q8_0_BYTES = 20, 34
_ALIGNMENT_BYTES = 32
# More than any file has (ggml takes 64 bytes and 4): what a broken one claims is not allocated.
_MAX_NAME_BYTES, _MAX_DIMENSIONS = 4096, 16
_CHUNK_BLOCKS = 1 << 16

Bytes = npt.NDArray[np.uint8]


class _Tensor(msgspec.Struct, frozen=True, kw_only=True):
    name: bytes
    shape: tuple[int, ...]
    kind: int
    offset: int

    def info(self, kind: int, offset: int) -> bytes:
        head = struct.pack("<Q", len(self.name)) + self.name + struct.pack("<I", len(self.shape))
        return head + struct.pack(f"<{len(self.shape)}QIQ", *self.shape, kind, offset)


def write_without_q4_1(source: Path, target: Path) -> bool:
    """Write a copy of a GGUF file in which Q4_1 tensors are Q8_0.

    Args:
        source: The file.
        target: Where the copy goes.

    Returns:
        Whether it was written; False for a file without such tensors, or with an unusual alignment.

    Raises:
        ConfigError: The file ends too early, or its header is broken.
        OSError: One of them cannot be read or written.
    """
    try:
        return _copied(source, target)
    except (struct.error, IndexError, ValueError) as error:
        raise ConfigError(
            f"The model {source} is cut off or broken ({error}); fetch the GGUF file again."
        ) from error


def _copied(source: Path, target: Path) -> bool:
    with source.open("rb") as file:
        file.seek(8)
        count, entries = struct.unpack("<QQ", file.read(16))
        alignment_bytes = skip_entries(file, entries)
        entries_end = file.tell()
        tensors = [_read_info(file) for _ in range(count)]
        start = _aligned(file.tell())
        if alignment_bytes != _ALIGNMENT_BYTES or all(t.kind != _Q4_1 for t in tensors):
            return False
        file.seek(0)
        head = file.read(entries_end)
    data: Bytes = np.memmap(source, np.uint8, "r", offset=start)
    with target.open("wb") as copy:
        _write(copy, head, tensors, data)
    return True


def _read_info(file: BinaryIO) -> _Tensor:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MAX_NAME_BYTES:
        raise ValueError(f"a tensor's name of {length} bytes")
    name = file.read(length)
    (dimensions,) = struct.unpack("<I", file.read(4))
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", file.read(8 * dimensions + 12))
    return _Tensor(name=name, shape=tuple(shape), kind=kind, offset=offset)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _write(copy: BinaryIO, head: bytes, tensors: list[_Tensor], data: Bytes) -> None:
    ends = sorted([*(tensor.offset for tensor in tensors), len(data)])
    infos: list[bytes] = []
    sizes: list[int] = []
    offset = 0
    for tensor in tensors:
        size = ends[ends.index(tensor.offset) + 1] - tensor.offset
        if tensor.kind == _Q4_1:
            size = math.prod(tensor.shape) // _BLOCK * _Q8_0_BYTES
        infos.append(tensor.info(_Q8_0 if tensor.kind == _Q4_1 else tensor.kind, offset))
        sizes.append(size)
        offset += _aligned(size)
    copy.write(head + b"".join(infos))
    for tensor, size in zip(tensors, sizes, strict=True):
        copy.write(b"\0" * (_aligned(copy.tell()) - copy.tell()))
        if tensor.kind == _Q4_1:
            blocks = math.prod(tensor.shape) // _BLOCK
            stored = data[tensor.offset : tensor.offset + blocks * _Q4_1_BYTES]
            for first in range(0, blocks, _CHUNK_BLOCKS):
                rows = stored.reshape(blocks, _Q4_1_BYTES)[first : first + _CHUNK_BLOCKS]
                copy.write(q8_0_of_q4_1(rows).tobytes())
        else:
            copy.write(data[tensor.offset : tensor.offset + size].tobytes())
    copy.write(b"\0" * (_aligned(copy.tell()) - copy.tell()))


def q8_0_of_q4_1(blocks: Bytes) -> Bytes:
    """The same weights in the other format.

    A Q4_1 block is a scale d and an offset m of 16 bits and 32 numbers q of 4 bits: d q + m. A Q8_0
    block is a scale d and 32 signed numbers q of 8 bits: d q.

    Args:
        blocks: Shape (blocks, 20).

    Returns:
        Shape (blocks, 34).
    """
    scales = np.ascontiguousarray(blocks[:, :4]).view(np.float16).astype(np.float32)
    packed = blocks[:, 4:]
    numbers = np.concatenate([packed & 15, packed >> 4], axis=1)
    weights = numbers * scales[:, :1] + scales[:, 1:]
    scale = (np.abs(weights).max(axis=1, keepdims=True) / 127).astype(np.float16)
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)
    rounded = np.clip(np.rint(weights / divisor), -127, 127).astype(np.int8)
    result: Bytes = np.concatenate([scale.view(np.uint8), rounded.view(np.uint8)], axis=1)
    return result
