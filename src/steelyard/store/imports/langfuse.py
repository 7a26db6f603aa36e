"""Observations exported from Langfuse.

Source: model `Observation` of Langfuse's OpenAPI specification
(cloud.langfuse.com/generated/api/openapi.yml): id, traceId, type (GENERATION, SPAN, TOOL, AGENT,
EVENT, ...), name, startTime, endTime, model, usageDetails, usage, parentObservationId; the export
from the user interface writes the same as JSON or CSV. Read 2026-11-23.
"""

from collections import Counter
from pathlib import Path

from steelyard.store.imports.assemble import assemble, count_of, seconds_of
from steelyard.store.imports.record import Imported, SeenStep
from steelyard.store.imports.records import Record, field, nested, records_of

FORM = "langfuse"


def looks_like(record: Record) -> bool:
    """Is this record an observation?"""
    return "traceId" in record and "type" in record and "startTime" in record


def read(path: Path) -> Imported:
    """Which tasks do these observations show?

    A task is a trace. Generations are calls, tools are tools, and so are spans without children;
    spans, chains and agents that hold others are left out, since their time is their children's.

    Args:
        path: JSON, JSON lines or CSV.

    Returns:
        The workload and the report.

    Raises:
        WorkloadError: No observation is in the file, or one is wrong.
    """
    records = list(records_of(path))
    parents = {str(field(record, "parentObservationId") or "") for _, record in records}
    seen: list[SeenStep] = []
    skipped: Counter[str] = Counter()
    for row, record in records:
        kind = str(record.get("type", "")).upper()
        is_leaf = str(record.get("id")) not in parents
        if kind == "GENERATION":
            seen.append(_step(path, row, record))
        elif kind == "TOOL" or (kind == "SPAN" and is_leaf):
            seen.append(_tool(path, row, record))
        else:
            skipped[f"{kind or 'no'} type, neither a call nor a tool"] += 1
    return assemble(path, FORM, seen, skipped)


def _times(path: Path, row: int, record: Record) -> tuple[float, float | None]:
    end = field(record, "endTime")
    return (
        seconds_of(path, f"record {row}, startTime", record.get("startTime")),
        None if end is None else seconds_of(path, f"record {row}, endTime", end),
    )


def _tool(path: Path, row: int, record: Record) -> SeenStep:
    start_s, end_s = _times(path, row, record)
    name = str(field(record, "name") or "")
    return SeenStep(
        row=row,
        task=str(record.get("traceId")),
        kind="tool",
        start_s=start_s,
        end_s=end_s,
        name=name,
        tool=name,
        agent=str(field(record, "traceName") or ""),
    )


def _step(path: Path, row: int, record: Record) -> SeenStep:
    start_s, end_s = _times(path, row, record)
    usage = nested(record, "usageDetails") or nested(record, "usage")

    def count(*names: str) -> int | None:
        value = field(usage, *names) if usage else None
        return count_of(path, f"record {row}, usageDetails.{names[0]}", value)

    fresh = count("input", "prompt_tokens", "promptTokens")
    cached = count("input_cached_tokens", "cache_read_input_tokens", "input_cache_read")
    if fresh is None:
        fresh = count_of(path, f"record {row}, promptTokens", field(record, "promptTokens"))
    output = count("output", "completion_tokens", "completionTokens")
    if output is None:
        output = count_of(path, f"record {row}, outputTokens", field(record, "completionTokens"))
    # Langfuse keeps kinds of usage apart: `input` leaves out what was read from a cache.
    prompt = None if fresh is None and cached is None else (fresh or 0) + (cached or 0)
    return SeenStep(
        row=row,
        task=str(record.get("traceId")),
        kind="llm",
        start_s=start_s,
        end_s=end_s,
        name=str(field(record, "name") or ""),
        agent=str(field(record, "traceName") or ""),
        model=str(field(record, "model", "providedModelName") or ""),
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
    )
