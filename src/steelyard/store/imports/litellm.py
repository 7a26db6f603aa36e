"""Spend logs of the LiteLLM proxy.

Source: table `LiteLLM_SpendLogs` of BerriAI/litellm (`schema.prisma`; the same fields in
`litellm-js/spend-logs/src/_types.ts`), as `/spend/logs` answers or as exported from PostgreSQL:
request_id, call_type, spend, prompt_tokens, completion_tokens, startTime, endTime, model, user,
end_user, metadata, session_id, cache_hit. Read 2026-11-23.
"""

from collections import Counter
from pathlib import Path

from steelyard.store.imports.assemble import assemble, count_of, seconds_of
from steelyard.store.imports.record import Imported, SeenStep
from steelyard.store.imports.records import Record, field, nested, records_of

FORM = "litellm"


def looks_like(record: Record) -> bool:
    """Is this record a row of the spend logs?"""
    return "request_id" in record and "completion_tokens" in record and "startTime" in record


def read(path: Path) -> Imported:
    """Which tasks do these spend logs show?

    A task is a session (`session_id`, or `session_id` and `trace_id` in the metadata); a request
    without one is a task of its own. The agent is the end user's application (`end_user` or
    `user`). Answers from the proxy's own response cache ran on no model and are left out.

    Args:
        path: JSON, JSON lines or CSV.

    Returns:
        The workload and the report.

    Raises:
        WorkloadError: No request is in the file, or a row is wrong.
    """
    seen: list[SeenStep] = []
    skipped: Counter[str] = Counter()
    for row, record in records_of(path):
        if str(field(record, "cache_hit") or "").lower() == "true":
            skipped["answered from the proxy's response cache"] += 1
        elif str(field(record, "status") or "success") == "failure":
            skipped["failed request"] += 1
        else:
            seen.append(_step(path, row, record))
    return assemble(path, FORM, seen, skipped)


def _step(path: Path, row: int, record: Record) -> SeenStep:
    metadata = nested(record, "metadata")
    usage = nested(metadata, "usage_object") or nested(metadata, "additional_usage_values")
    details = nested(usage, "prompt_tokens_details")
    session = field(record, "session_id") or field(metadata, "session_id", "trace_id")
    end = field(record, "endTime")

    def count(name: str, value: object) -> int | None:
        return count_of(path, f"row {row}, column {name}", value)

    cached = field(details, "cached_tokens") or field(usage, "cache_read_input_tokens")
    return SeenStep(
        row=row,
        task=str(session or field(record, "request_id") or row),
        kind="llm",
        start_s=seconds_of(path, f"row {row}, column startTime", record.get("startTime")),
        end_s=None if end is None else seconds_of(path, f"row {row}, column endTime", end),
        agent=str(field(record, "end_user", "user") or ""),
        model=str(field(record, "model_group", "model") or ""),
        prompt_tokens=count("prompt_tokens", record.get("prompt_tokens")),
        output_tokens=count("completion_tokens", record.get("completion_tokens")),
        cached_tokens=count("metadata.usage_object cached tokens", cached),
    )
