"""How many texts does one core turn into vectors? In CPU seconds: neighbours hardly change them.

.venv/bin/python benchmarks/embeddings.py
"""

import os
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

from steelyard.pools.engine.embedding_model import EmbeddingModel, find_embedding_model

_WORDS = "the cheapest pool that still meets its deadline gets the next step of a task "
_CASES = ((16, 1), (16, 8), (64, 1), (64, 16), (128, 8), (256, 4))
_REPEATS = 5
_TOKENS_PER_ROUND = 8192


def main() -> None:
    """Measure and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    model = EmbeddingModel(find_embedding_model())
    day = datetime.now(UTC).date().isoformat()
    print(f"all-MiniLM-L6-v2 on OpenVINO, one thread; {_processor()}, {day}")
    print("tokens  texts/batch  CPU ms/text  texts per core-second  tokens per core-second")
    for tokens, batch in _CASES:
        row = _row(model, tokens)
        rounds = max(2, _TOKENS_PER_ROUND // (tokens * batch))
        model.embed([row] * batch)
        best_s = min(_cpu_s(model, [row] * batch, rounds) for _ in range(_REPEATS))
        per_text_s = best_s / (rounds * batch)
        print(
            f"{tokens:6}  {batch:11}  {1e3 * per_text_s:11.2f}  {1 / per_text_s:21.0f}  "
            f"{tokens / per_text_s:22.0f}"
        )
    start_s = time.process_time()
    text = _WORDS * 1000
    found = len(model.encode(text))
    print(f"tokenizer: {found / (time.process_time() - start_s):.0f} tokens per core-second")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


def _row(model: EmbeddingModel, tokens: int) -> list[int]:
    row = model.encode(_WORDS * 20)
    return [*row[: tokens - 1], row[-1]]


def _cpu_s(model: EmbeddingModel, rows: list[list[int]], rounds: int) -> float:
    start_s = time.process_time()
    for _ in range(rounds):
        model.embed(rows)
    return time.process_time() - start_s


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "")
    has = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni") if flag in flags.split()]
    return f"{name or platform.machine()} ({', '.join(has) or 'no 16-bit floats'})"


if __name__ == "__main__":
    main()
