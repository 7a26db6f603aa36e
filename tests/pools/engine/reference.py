"""What sentence-transformers makes of twenty texts: see scripts/embedding_reference.py."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from steelyard.pools.engine.bert import Floats

_FILE = Path(__file__).with_name("minilm_reference.json")
_ENTRIES: tuple[dict[str, Any], ...] = tuple(json.loads(_FILE.read_text("utf-8"))["texts"])

TEXTS: tuple[str, ...] = tuple(entry["text"] for entry in _ENTRIES)
TOKEN_IDS: tuple[list[int], ...] = tuple(entry["token_ids"] for entry in _ENTRIES)


def reference_vectors() -> Floats:
    """Vectors of length 1, shape (20, 384)."""
    rows = [
        np.frombuffer(base64.b64decode(entry["float16_base64"]), dtype="<f2") for entry in _ENTRIES
    ]
    return np.stack(rows).astype(np.float32)
