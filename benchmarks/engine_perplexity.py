"""How well does each library predict the same text from the same GGUF file? On one core.

    .venv/bin/python benchmarks/engine_perplexity.py

The texts are the openings of "Pride and Prejudice" (1813) and "Moby-Dick" (1851), in the public
domain. The model has surely read them, which does not matter to a comparison. OpenVINO GenAI echoes
the log-probabilities of a prompt. llama.cpp's server does not: it is asked for one token behind
every start of the text, with a bias that makes it choose the text's own, whose log-probability it
reports from before the bias. No wire of ours is involved, and no chance, so there is no seed.
"""

import datetime as dt
import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from engine_servers import wheel

from steelyard.config.environment import machine_description
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.openvino import OpenVinoAdapter

_TEXTS = (
    (
        "It is a truth universally acknowledged, that a single man in possession of a good "
        "fortune, must be in want of a wife. However little known the feelings or views of "
        "such a man may be on his first entering a neighbourhood, this truth is so well "
        "fixed in the minds of the surrounding families, that he is considered as the "
        "rightful property of some one or other of their daughters."
    ),
    (
        "Call me Ishmael. Some years ago - never mind how long precisely - having little or "
        "no money in my purse, and nothing particular to interest me on shore, I thought I "
        "would sail about a little and see the watery part of the world. It is a way I have "
        "of driving off the spleen and regulating the circulation. Whenever I find myself "
        "growing grim about the mouth; whenever it is a damp, drizzly November in my soul; "
        "whenever I find myself involuntarily pausing before coffin warehouses, and "
        "bringing up the rear of every funeral I meet."
    ),
)


def openvino_logprobs(adapter: OpenVinoAdapter, token_ids: list[int]) -> list[float]:
    """Of every token but the first."""
    config: Any = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.logprobs, config.echo = 1, 1, True
    pipeline = adapter._pipeline  # noqa: SLF001 - the adapter offers no echo, and needs none
    tensor = openvino.Tensor(np.array([token_ids], dtype=np.int64))
    handle = pipeline.add_request(0, tensor, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    logprobs = [p for out in handle.read_all() for p in out.generated_log_probs]
    return logprobs[1 : len(token_ids)]


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
    adapter = OpenVinoAdapter(Path(model.path), EngineSettings(), model.context_tokens)
    tokens = [adapter.encode(text) for text in _TEXTS]
    theirs: list[float] = []
    with wheel(model.path, 1, 1, 1024) as server:
        for token_ids in tokens:
            theirs += llamacpp_logprobs(server.base_url, token_ids)
    ours = [p for token_ids in tokens for p in openvino_logprobs(adapter, token_ids)]
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    for name, logprobs in (("openvino", ours), ("llama.cpp", theirs)):
        mean = math.fsum(logprobs) / len(logprobs)
        print(f"{name}: perplexity {math.exp(-mean):.3f} over {len(logprobs)} tokens")
    print(
        f"log-probabilities apart: mean {math.fsum(apart) / len(apart):.3f}, most {max(apart):.3f}"
    )


if __name__ == "__main__":
    main()
