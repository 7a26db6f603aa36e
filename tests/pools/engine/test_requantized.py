import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import ConfigError
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.requantized import q8_0_of_q4_1, write_without_q4_1

Floats = npt.NDArray[np.float32]


def q4_1(scale: float, offset: float, numbers: list[int]) -> bytes:
    packed = bytes(low | high << 4 for low, high in zip(numbers[:16], numbers[16:], strict=True))
    return struct.pack("<ee", scale, offset) + packed


def weights_of_q8_0(blocks: bytes) -> Floats:
    rows = np.frombuffer(blocks, np.uint8).reshape(-1, 34)
    scales = np.ascontiguousarray(rows[:, :2]).view(np.float16).astype(np.float32)
    return rows[:, 2:].view(np.int8) * scales


@given(
    st.floats(-4, 4, width=16),
    st.floats(-4, 4, width=16),
    st.lists(st.integers(0, 15), min_size=32, max_size=32),
)
def test_weights_stay_within_half_a_step_of_eight_bits(
    scale: float, offset: float, numbers: list[int]
) -> None:
    blocks = np.frombuffer(q4_1(scale, offset, numbers), np.uint8).reshape(1, 20)
    weights = np.array(numbers, np.float32) * np.float32(scale) + np.float32(offset)
    written = weights_of_q8_0(q8_0_of_q4_1(blocks).tobytes())
    largest = float(np.abs(weights).max())
    # The scale has 11 bits, and none for the smallest numbers.
    assert float(np.abs(written - weights).max()) <= largest * (0.5 / 127 + 2**-10) + 1e-5


def tensor_info(name: str, length: int, kind: int, offset: int) -> bytes:
    return (
        struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQIQ", 1, length, kind, offset)
    )


def gguf(path: Path, kinds: list[int]) -> Path:
    """Entries of a model that loads, and a tensor of 64 weights of each kind (0: 32-bit floats)."""
    length = struct.pack("<Q", 20) + b"llama.context_length" + struct.pack("<II", 4, 64)
    architecture = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5)
    body, infos = b"", b""
    for number, kind in enumerate(kinds):
        infos += tensor_info(f"t{number}", 64, kind, len(body))
        block = q4_1(0.5, -3.0, [3, 9, *range(16), *range(14)])
        tensor = block * 2 if kind == 3 else np.arange(64, dtype=np.float32).tobytes()
        body += tensor + b"\0" * (-len(tensor) % 32)
    head = (
        b"GGUF" + struct.pack("<IQQ", 3, len(kinds), 2) + architecture + b"llama" + length + infos
    )
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def test_the_copy_is_the_same_model_with_other_weights(tmp_path: Path) -> None:
    source, copy = gguf(tmp_path / "a.gguf", [3, 0, 3]), tmp_path / "b.gguf"
    assert write_without_q4_1(source, copy)
    assert find_model(copy).context_tokens == 64
    data = copy.read_bytes()
    assert len(data) % 32 == 0
    assert tensor_info("t0", 64, 8, 0) in data
    assert tensor_info("t1", 64, 0, 96) in data
    assert tensor_info("t2", 64, 8, 352) in data
    start = len(data) - 352 - 96
    assert data[start + 96 : start + 352] == np.arange(64, dtype=np.float32).tobytes()
    expected = np.array([3, 9, *range(16), *range(14)], np.float32) * 0.5 - 3.0
    for offset in (0, 352):
        rows = weights_of_q8_0(data[start + offset : start + offset + 68])
        assert np.allclose(rows, expected, atol=0.04)
    assert not write_without_q4_1(copy, tmp_path / "c.gguf")


@pytest.mark.parametrize("kept_bytes", [20, 90, 200, 256])
def test_a_file_that_ends_too_early_is_told_as_such(tmp_path: Path, kept_bytes: int) -> None:
    whole = gguf(tmp_path / "whole.gguf", [0, 3, 3])
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:kept_bytes])
    with pytest.raises(ConfigError, match="cut off or broken"):
        write_without_q4_1(cut, tmp_path / "copy.gguf")


@pytest.mark.parametrize("info", [struct.pack("<Q", 1 << 60), struct.pack("<QI", 0, 1 << 30)])
def test_a_broken_file_that_claims_much_is_told_as_such(tmp_path: Path, info: bytes) -> None:
    whole = gguf(tmp_path / "whole.gguf", [3]).read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.replace(tensor_info("t0", 64, 3, 0), info))
    with pytest.raises(ConfigError, match="cut off or broken"):
        write_without_q4_1(broken, tmp_path / "copy.gguf")


def test_leaves_other_models_alone(tmp_path: Path) -> None:
    source = gguf(tmp_path / "a.gguf", [0, 0])
    assert not write_without_q4_1(source, tmp_path / "b.gguf")
    assert not (tmp_path / "b.gguf").exists()
