"""How well does each library predict the same text from the same GGUF file? On one core.

    .venv/bin/python benchmarks/engine_perplexity.py

The texts are those of steelyard.pools.engine.quality. OpenVINO GenAI computes in every precision,
and echoes the log-probabilities of a prompt. llama.cpp's server does not: it is asked for one
token behind every start of the text, with a bias that makes it choose the text's own, whose log-
probability it reports from before the bias. No wire of ours is involved, and no chance, so there
is no seed.
"""

import datetime as dt
import json
import math
import urllib.request
from pathlib import Path

from engine_servers import wheel

from steelyard.config.environment import machine_description
from steelyard.pools.engine.adapter import EngineSettings, Precision
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.openvino import OpenVinoAdapter
from steelyard.pools.engine.quality import TEXTS, perplexity, prompt_logprobs


def llamacpp_logprobs(base_url: str, token_ids: list[int]) -> list[float]:
    """Of every token but the first."""
    found: list[float] = []
    for position in range(1, len(token_ids)):
        body = {
            "prompt": token_ids[:position],
            "n_predict": 1,
            "n_probs": 1,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "logit_bias": [[token_ids[position], 1000.0]],
            "id_slot": 0,
        }
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{base_url.removesuffix('/v1')}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            (entry,) = json.load(answer)["completion_probabilities"]
        if entry["id"] != token_ids[position]:
            raise SystemExit(f"the server chose {entry['id']}, not {token_ids[position]}")
        found.append(entry["logprob"])
    return found


def main() -> None:
    """Compute and print."""
    model = find_model()
    print(f"{machine_description()}; {dt.datetime.now(dt.UTC).date()}; {Path(model.path).name}")
    path = Path(model.path)
    logprobs: dict[str, list[float]] = {}
    precisions: tuple[Precision, ...] = ("native", "f32", "int8")
    for precision in precisions:
        adapter = OpenVinoAdapter(path, EngineSettings(precision=precision), model.context_tokens)
        tokens = [adapter.encode(text) for text in TEXTS]
        pipeline = adapter._pipeline  # noqa: SLF001 - the adapter offers no echo, and needs none
        logprobs[f"openvino, {precision}"] = [
            p for token_ids in tokens for p in prompt_logprobs(pipeline, token_ids)
        ]
    with wheel(model.path, 1, 1, 1024) as server:
        theirs = [p for ids in tokens for p in llamacpp_logprobs(server.base_url, ids)]
    for name, ours in {**logprobs, "llama.cpp": theirs}.items():
        apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{name}: perplexity {perplexity(ours):.3f} over {len(ours)} tokens; log-probabilities "
            f"apart from llama.cpp's: mean {math.fsum(apart) / len(apart):.3f}, most "
            f"{max(apart):.3f}"
        )


if __name__ == "__main__":
    main()
