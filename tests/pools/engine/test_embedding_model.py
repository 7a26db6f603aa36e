import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.pools.engine.reference import TEXTS, reference_vectors

from steelyard.errors import ConfigError
from steelyard.pools.engine.bert import Weights
from steelyard.pools.engine.embedding_model import EmbeddingModel, find_embedding_model


@pytest.mark.engine
def test_vectors_are_those_of_sentence_transformers() -> None:
    model = EmbeddingModel(find_embedding_model())
    rows = [model.encode(text) for text in TEXTS]
    expected = reference_vectors()
    together = model.embed(rows)
    alone = np.concatenate([model.embed([row]) for row in rows])
    for found in (together, alone):
        assert found.shape == (20, 384)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
        cosine = (found * expected).sum(axis=1)
        assert cosine.min() > 0.999, TEXTS[int(cosine.argmin())]


@pytest.mark.engine
def test_a_piece_that_ends_lines_in_unicode_is_one_piece(tmp_path: Path) -> None:
    packaged = find_embedding_model()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(packaged / name)
    pieces = (packaged / "vocab.txt").read_text(encoding="utf-8")
    changed = pieces.replace("[unused1]", "a\u2028b\x85")
    assert changed != pieces
    (tmp_path / "vocab.txt").write_text(changed, encoding="utf-8")
    assert EmbeddingModel(tmp_path).encode("hello") == EmbeddingModel(packaged).encode("hello")


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file config\.json"):
        find_embedding_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{}", "does not describe a BERT model"),
        ("[1]", "does not describe a BERT model"),
        (
            (
                '{"model_type": "roberta", "hidden_size": 8, "num_attention_heads": 1,'
                ' "num_hidden_layers": 1, "layer_norm_eps": 1e-12, "max_position_embeddings": 8}'
            ),
            "type roberta",
        ),
    ],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, config: str, told: str) -> None:
    for name in ("model.safetensors", "vocab.txt"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ConfigError, match=told):
        EmbeddingModel(find_embedding_model(tmp_path))


def _weights(path: Path, head: object, data: bytes) -> Weights:
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return Weights(path)


def test_reads_tensors_of_16_and_32_bits(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0]], dtype=np.float32)
    head = {
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
        "c": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "d": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]},
    }
    data = values.tobytes() + values.astype(np.float16).tobytes()
    weights = _weights(tmp_path / "w", head, data)
    np.testing.assert_array_equal(weights["a"], values)
    np.testing.assert_array_equal(weights["b"], values[0])
    for name in ("c", "d", "missing"):
        with pytest.raises(ConfigError, match=name):
            weights[name]


@pytest.mark.parametrize("content", [b"", b"\x10", struct.pack("<Q", 1 << 60), b"\x02" + b"\0" * 7])
def test_a_broken_file_of_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ConfigError, match="weights"):
        Weights(tmp_path / "w")
