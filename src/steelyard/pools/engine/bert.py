"""A BERT network with mean pooling as an OpenVINO graph, built from its model's own files.

Built with OpenVINO's own operations, so that no training framework is needed to run it. The
network is that of Devlin et al., "BERT" (arXiv 1810.04805); the pooling and the unit length of the
vectors are those of Reimers and Gurevych, "Sentence-BERT" (arXiv 1908.10084).
"""

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import ConfigError, MissingExtraError

# Far below every attention score, and far from the limits of 16-bit floats.
_MASKED = 1e9
_DTYPES = {"F32": np.float32, "F16": np.float16}

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class BertShape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a BERT network, by the names of its `config.json`."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    max_position_embeddings: int
    hidden_act: str = "gelu"


class Weights:
    """The tensors of a safetensors file, mapped into memory.

    The format (huggingface/safetensors, README): eight bytes with the length of a JSON header, the
    header with type, shape and place of every tensor, the tensors.

    Args:
        path: The file.

    Raises:
        ConfigError: It is no such file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                (head_bytes,) = struct.unpack("<Q", file.read(8))
                self._head: dict[str, Any] = json.loads(file.read(head_bytes))
            self._data = np.memmap(path, np.uint8, "r", offset=8 + head_bytes)
        except (OSError, struct.error, ValueError, OverflowError, MemoryError) as error:
            raise ConfigError(f"Cannot read the weights {path}: {error}.") from error
        self._path = path

    def __getitem__(self, name: str) -> Floats:
        """The tensor of this name, as 32-bit floats."""
        try:
            entry = self._head[name]
            first, last = entry["data_offsets"]
            stored = self._data[first:last].view(_DTYPES[entry["dtype"]])
            return stored.reshape(entry["shape"]).astype(np.float32, copy=False)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self._path} has no tensor {name} of 16- or 32-bit floats ({error!r}); it is "
                "not the BERT model that its config.json describes."
            ) from error


class BertEncoder:
    """Turns rows of tokens into vectors of length 1, on one thread.

    Args:
        shape: The network's sizes.
        weights: Its tensors.
        threads: Threads of the library.

    Raises:
        MissingExtraError: openvino is not installed.
        ConfigError: The weights are not those of the network.
    """

    def __init__(self, shape: BertShape, weights: Weights, threads: int) -> None:
        try:
            import openvino  # noqa: PLC0415 - an optional extra, and slow to import
        except ImportError as error:
            raise MissingExtraError(
                f"Embeddings need openvino, and importing it failed: {error}. "
                "Install it: pip install 'steelyard[engine]'."
            ) from error
        # 16-bit floats where the processor computes with them: several times as fast, and the
        # vectors' cosine with the 32-bit ones stays above 0.9999 (docs/adr/0014).
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        model = _Graph(shape, weights).model()
        self._request: Any = openvino.Core().compile_model(model, "CPU", options)
        self._request = self._request.create_infer_request()

    def encode(self, token_ids: Integers, mask: Floats) -> Floats:
        """What vectors are the rows?

        Args:
            token_ids: Tokens, shape (rows, longest); what is behind a row's end is ignored.
            mask: 1 where a token is, 0 behind a row's end; the same shape.

        Returns:
            Vectors of length 1, shape (rows, hidden size).
        """
        result: Floats = self._request.infer([token_ids, mask])[0]
        return result.astype(np.float32, copy=True)


class _Graph:
    """Builds the network, operation by operation."""

    def __init__(self, shape: BertShape, weights: Weights) -> None:
        from openvino import Model, opset13  # noqa: PLC0415 - an optional extra

        self._model: Any = Model
        self._op: Any = opset13
        self._shape = shape
        self._weights = weights

    def model(self) -> Any:  # noqa: ANN401 - the library has no types
        op, shape = self._op, self._shape
        token_ids = op.parameter([-1, -1], np.int64, name="token_ids")
        mask = op.parameter([-1, -1], np.float32, name="mask")
        rows = self._embedded(token_ids)
        hidden_tokens = op.subtract(mask, self._float(1.0))
        bias = op.multiply(hidden_tokens, self._float(_MASKED))
        bias = op.unsqueeze(bias, self._ints(1, 2))
        for number in range(shape.num_hidden_layers):
            rows = self._layer(rows, bias, f"encoder.layer.{number}")
        # Mean over the tokens of the row, then length 1.
        weight = op.unsqueeze(mask, self._ints(2))
        total = op.reduce_sum(op.multiply(rows, weight), self._ints(1))
        mean = op.divide(total, op.reduce_sum(weight, self._ints(1)))
        vectors = op.normalize_l2(mean, self._ints(1), 1e-24, "add")
        return self._model([vectors], [token_ids, mask], "bert")

    def _embedded(self, token_ids: Any) -> Any:  # noqa: ANN401 - the library has no types
        op, weights = self._op, self._weights
        length = op.gather(op.shape_of(token_ids, "i64"), self._int(1), self._int(0))
        places = op.range(self._int(0), length, self._int(1), "i64")
        words = op.constant(weights["embeddings.word_embeddings.weight"])
        # All text is of BERT's first segment, so its vector is part of every place's.
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        at = op.constant(weights["embeddings.position_embeddings.weight"] + segment)
        words = op.gather(words, token_ids, self._int(0))
        both = op.add(words, op.gather(at, places, self._int(0)))
        return self._normalised(both, "embeddings.LayerNorm")

    def _layer(self, rows: Any, bias: Any, name: str) -> Any:  # noqa: ANN401 - the library has no types
        op = self._op
        query, key, value = (
            self._heads(self._dense(rows, f"{name}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        seen = op.scaled_dot_product_attention(query, key, value, bias)
        together = self._ints(0, 0, self._shape.hidden_size)
        seen = op.reshape(op.transpose(seen, self._ints(0, 2, 1, 3)), together, True)
        seen = self._dense(seen, f"{name}.attention.output.dense")
        rows = self._normalised(op.add(seen, rows), f"{name}.attention.output.LayerNorm")
        wide = op.gelu(self._dense(rows, f"{name}.intermediate.dense"), "erf")
        narrow = self._dense(wide, f"{name}.output.dense")
        return self._normalised(op.add(narrow, rows), f"{name}.output.LayerNorm")

    def _heads(self, rows: Any) -> Any:  # noqa: ANN401 - the library has no types
        op, heads = self._op, self._shape.num_attention_heads
        apart = self._ints(0, 0, heads, self._shape.hidden_size // heads)
        return op.transpose(op.reshape(rows, apart, True), self._ints(0, 2, 1, 3))

    def _dense(self, rows: Any, name: str) -> Any:  # noqa: ANN401 - the library has no types
        op = self._op
        weight = op.constant(self._weights[f"{name}.weight"])
        product = op.matmul(rows, weight, False, True)
        return op.add(product, op.constant(self._weights[f"{name}.bias"]))

    def _normalised(self, rows: Any, name: str) -> Any:  # noqa: ANN401 - the library has no types
        op, eps = self._op, self._shape.layer_norm_eps
        rows = op.mvn(rows, self._ints(2), True, eps, "inside_sqrt")
        rows = op.multiply(rows, op.constant(self._weights[f"{name}.weight"]))
        return op.add(rows, op.constant(self._weights[f"{name}.bias"]))

    def _int(self, value: int) -> Any:  # noqa: ANN401 - the library has no types
        return self._op.constant(value, np.int64)

    def _ints(self, *values: int) -> Any:  # noqa: ANN401 - the library has no types
        return self._op.constant(list(values), np.int64)

    def _float(self, value: float) -> Any:  # noqa: ANN401 - the library has no types
        return self._op.constant(value, np.float32)
