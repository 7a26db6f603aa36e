"""Arrival and request traces: Azure, BurstGPT, Mooncake, ServeGen, and results of `vllm bench`.

Sources, read 2026-11-23:
- Azure/AzurePublicDataset, AzureLLMInferenceTrace_*.csv: TIMESTAMP, ContextTokens, GeneratedTokens.
- HPMLL/BurstGPT, BurstGPT_*.csv: Timestamp, Model, Request tokens, Response tokens, Session ID.
- kvcache-ai/Mooncake, *_trace.jsonl: timestamp (ms), input_length, output_length, hash_ids (one per
  512 tokens).
- alibaba/ServeGen's generator and others: timestamp (s), input_tokens or request_tokens, ...
- vllm-project/vllm, `vllm bench serve --save-detailed` (vllm/benchmarks/serve.py): input_lens,
  output_lens, ttfts, itls, and start_times from 2026 on.
"""

from collections import Counter
from pathlib import Path

from steelyard.errors import WorkloadError
from steelyard.store.imports.assemble import assemble, count_of, seconds_of
from steelyard.store.imports.record import Imported, SeenStep
from steelyard.store.imports.records import Record, field, list_of, records_of

FORM = "requests"

_RATE = "request_throughput"

_TIMES = ("TIMESTAMP", "Timestamp", "timestamp", "arrival_s", "arrival_time", "time")
_PROMPTS = (
    "ContextTokens",
    "Request tokens",
    "input_length",
    "input_tokens",
    "prompt_tokens",
    "input_len",
    "request_tokens",
)
_OUTPUTS = (
    "GeneratedTokens",
    "Response tokens",
    "output_length",
    "output_tokens",
    "completion_tokens",
    "output_len",
    "response_tokens",
)
_SESSIONS = ("Session ID", "session_id", "conversation_id", "chat_id")
_BLOCK_TOKENS = 512
_MILLI = 1000.0


def looks_like(record: Record) -> bool:
    """Is this record a request with a time and two lengths, or a result of vLLM's benchmark?"""
    if "input_lens" in record and "output_lens" in record:
        return True
    return all(any(name in record for name in some) for some in (_TIMES, _PROMPTS, _OUTPUTS))


def read(path: Path) -> Imported:
    """Which requests does this trace hold? Each is a task, or a step of its session's task.

    Args:
        path: CSV, JSON lines or JSON.

    Returns:
        The workload and the report.

    Raises:
        WorkloadError: No request is in the file, or a row is wrong.
    """
    seen: list[SeenStep] = []
    skipped: Counter[str] = Counter()
    known: set[int | str] = set()
    for row, record in records_of(path):
        if "input_lens" in record:
            seen.extend(_benchmark(path, row, record, skipped))
            continue
        step = _step(path, row, record, known)
        if (step.output_tokens or 0) == 0 and "Response tokens" in record:
            skipped["failed request (no response tokens)"] += 1
        else:
            seen.append(step)
    return assemble(path, FORM, seen, skipped)


def _step(path: Path, row: int, record: Record, known: set[int | str]) -> SeenStep:
    time = next((name for name in _TIMES if name in record), _TIMES[0])
    prompt = next((name for name in _PROMPTS if name in record), _PROMPTS[0])
    output = next((name for name in _OUTPUTS if name in record), _OUTPUTS[0])
    start_s = seconds_of(path, f"row {row}, column {time}", record.get(time))
    prompt_tokens = count_of(path, f"row {row}, column {prompt}", record.get(prompt))
    shared: int | None = 0
    if record.get("hash_ids") is not None:
        hashes = list_of(path, f"row {row},", record, "hash_ids")
        if not all(isinstance(one, int | str) for one in hashes):
            raise WorkloadError(f"{path}: row {row}, hash_ids must hold numbers or texts alone")
        # Mooncake's times are milliseconds; its hashes name blocks of 512 tokens, in a chain.
        start_s /= _MILLI
        held = next((at for at, one in enumerate(hashes) if one not in known), len(hashes))
        known.update(hashes)
        shared = min(prompt_tokens or 0, held * _BLOCK_TOKENS)
    session = field(record, *_SESSIONS)
    if session is not None:
        shared = None
    return SeenStep(
        row=row,
        task=f"session-{session}" if session is not None else f"r{row}",
        kind="llm",
        start_s=start_s,
        model=str(field(record, "Model", "model") or ""),
        prompt_tokens=prompt_tokens,
        output_tokens=count_of(path, f"row {row}, column {output}", record.get(output)),
        shared_prefix_tokens=shared,
    )


def _benchmark(path: Path, row: int, result: Record, skipped: Counter[str]) -> list[SeenStep]:
    """The requests of one result of `vllm bench serve --save-detailed`."""
    where = f"record {row},"
    prompts = list_of(path, where, result, "input_lens")
    outputs = list_of(path, where, result, "output_lens")
    if len(prompts) != len(outputs):
        raise WorkloadError(
            f"{path}: record {row} has {len(prompts)} input_lens and {len(outputs)} output_lens; "
            "both must be as long"
        )
    errors = list_of(path, where, result, "errors")
    ttfts = list_of(path, where, result, "ttfts")
    itls = list_of(path, where, result, "itls")
    starts = list_of(path, where, result, "start_times")
    rate_per_s = seconds_of(path, f"{where} request_throughput", field(result, _RATE) or 0.0)
    if len(starts) < len(prompts) and not rate_per_s > 0.0:
        raise WorkloadError(
            f"{path}: record {row} has neither all start_times nor request_throughput, so no "
            "arrivals; run `vllm bench serve --save-detailed`"
        )
    seen: list[SeenStep] = []
    for at, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        if at < len(errors) and errors[at]:
            skipped["failed request"] += 1
            continue
        where = f"record {row}, request {at + 1},"
        if at < len(starts):
            start_s = seconds_of(path, f"{where} start_times", starts[at])
        else:
            start_s = at / rate_per_s
        took_s = None
        if at < len(ttfts) and at < len(itls):
            gaps = list_of(path, where, {"itls": itls[at]}, "itls")
            took_s = seconds_of(path, f"{where} ttfts", ttfts[at])
            took_s += sum(seconds_of(path, f"{where} itls", one) for one in gaps)
        seen.append(
            SeenStep(
                row=row * 1_000_000 + at,
                task=f"r{row}-{at}",
                kind="llm",
                start_s=start_s,
                end_s=None if took_s is None else start_s + took_s,
                model=str(result.get("model_id") or ""),
                prompt_tokens=count_of(path, f"{where} input_lens", prompt),
                output_tokens=count_of(path, f"{where} output_lens", output),
                shared_prefix_tokens=0,
            )
        )
    return seen
