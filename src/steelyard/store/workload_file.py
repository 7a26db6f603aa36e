"""Workload and trace files: Parquet or JSON lines, one row per step.

The schema is that of docs/glossary.md. Missing columns and values are allowed where a default is
named below; a row that cannot be read is named by file, row and column.
"""

from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from steelyard.domain.units import BYTES_PER_MIB
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError

_SCHEMA: dict[str, pl.DataType] = {
    "task_id": pl.String(),
    "agent": pl.String(),
    "step_id": pl.Int64(),
    "parents": pl.List(pl.Int64()),
    "kind": pl.String(),
    "name": pl.String(),
    "arrival_s": pl.Float64(),
    "llm_s": pl.Float64(),
    "think_or_tool_s": pl.Float64(),
    "prompt_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "max_output_tokens": pl.Int64(),
    "cached_tokens": pl.Int64(),
    "shared_prefix_tokens": pl.Int64(),
    "common_prefix_tokens": pl.Int64(),
    "cpu_s": pl.Float64(),
    "mem_mb": pl.Float64(),
    "model": pl.String(),
    "tool": pl.String(),
    "deadline_after_s": pl.Float64(),
    "budget_usd": pl.Float64(),
}
_COUNTS = ("prompt_tokens", "output_tokens", "shared_prefix_tokens", "common_prefix_tokens")
_NEEDED = ("task_id", "step_id", "kind")


def write_workload(workload: Workload, path: Path) -> None:
    """Write a workload as Parquet, or as JSON lines when the name ends in `.jsonl`.

    Args:
        workload: Tasks to write.
        path: Where to.
    """
    rows = [_row(task, step) for task in workload.tasks for step in task.steps]
    frame = pl.DataFrame(rows, schema=_SCHEMA)
    if path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path, compression="zstd")


def _row(task: WorkloadTask, step: WorkloadStep) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "agent": task.agent,
        "step_id": step.step_id,
        "parents": list(step.parents),
        "kind": step.kind,
        "name": step.name,
        "arrival_s": task.arrival_s,
        "llm_s": step.recorded_s if step.kind == "llm" else None,
        "think_or_tool_s": None if step.kind == "llm" else step.think_or_tool_s,
        "prompt_tokens": step.prompt_tokens if step.kind == "llm" else None,
        "output_tokens": step.output_tokens if step.kind == "llm" else None,
        "max_output_tokens": step.max_output_tokens,
        "cached_tokens": step.cached_tokens,
        "shared_prefix_tokens": step.shared_prefix_tokens if step.kind == "llm" else None,
        "common_prefix_tokens": step.common_prefix_tokens if step.kind == "llm" else None,
        "cpu_s": step.cpu_s if step.kind == "tool" else None,
        "mem_mb": step.memory_bytes / BYTES_PER_MIB if step.kind == "tool" else None,
        "model": step.model or None,
        "tool": step.tool or None,
        "deadline_after_s": task.deadline_after_s,
        "budget_usd": task.budget_usd,
    }


def read_workload(path: Path) -> Workload:
    """Which tasks does a workload file hold?

    Args:
        path: Parquet, or JSON lines when the name ends in `.jsonl`.

    Returns:
        The tasks in order of arrival.

    Raises:
        WorkloadError: The file is missing or unreadable, or a row is wrong.
    """
    if not path.is_file():
        raise WorkloadError(f"workload {path} does not exist; give a .parquet or .jsonl file")
    try:
        frame = pl.read_ndjson(path) if path.suffix == ".jsonl" else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WorkloadError(f"workload {path} cannot be read as {path.suffix}: {reason}") from error
    missing = [column for column in _NEEDED if column not in frame.columns]
    if missing:
        raise WorkloadError(f"workload {path} lacks the column {missing[0]}")
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in frame.iter_rows(named=True):
        tasks.setdefault(str(row["task_id"]), []).append(row)
    if not tasks:
        raise WorkloadError(f"workload {path} holds no task; record or synthesize one")
    read = [_task(path, task_id, rows) for task_id, rows in tasks.items()]
    read.sort(key=lambda task: (task.arrival_s, task.task_id))
    return Workload(name=path.stem, tasks=tuple(read), source=str(path))


def _task(path: Path, task_id: str, rows: list[dict[str, Any]]) -> WorkloadTask:
    first = rows[0]
    steps = sorted((_step(path, task_id, row) for row in rows), key=lambda step: step.step_id)
    known: set[int] = set()
    for step in steps:
        unknown = [parent for parent in step.parents if parent not in known]
        if unknown:
            raise WorkloadError(
                f"workload {path}: task {task_id} step {step.step_id} has parent {unknown[0]}, "
                "which is no earlier step; parents must have lower numbers"
            )
        if step.step_id in known:
            raise WorkloadError(f"workload {path}: task {task_id} has step {step.step_id} twice")
        known.add(step.step_id)
    return WorkloadTask(
        task_id=task_id,
        agent=str(first.get("agent") or path.stem),
        arrival_s=float(first.get("arrival_s") or 0.0),
        steps=tuple(steps),
        deadline_after_s=first.get("deadline_after_s"),
        budget_usd=first.get("budget_usd"),
    )


def _step(path: Path, task_id: str, row: dict[str, Any]) -> WorkloadStep:
    kind = row["kind"]
    values: dict[str, Any] = {
        "step_id": row["step_id"],
        "parents": row.get("parents") or [],
        "kind": kind,
        "name": row.get("name") or row.get("tool") or kind,
        "model": row.get("model") or "",
        "tool": row.get("tool") or "",
        "prompt_tokens": row.get("prompt_tokens") or 0,
        "output_tokens": row.get("output_tokens") or 0,
        "max_output_tokens": row.get("max_output_tokens"),
        "shared_prefix_tokens": row.get("shared_prefix_tokens") or 0,
        "common_prefix_tokens": row.get("common_prefix_tokens") or 0,
        "cpu_s": row.get("cpu_s") or 0.0,
        "think_or_tool_s": row.get("think_or_tool_s") or 0.0,
        "memory_bytes": int((row.get("mem_mb") or 0.0) * BYTES_PER_MIB),
        "recorded_s": row.get("llm_s") if kind == "llm" else row.get("think_or_tool_s"),
        "cached_tokens": row.get("cached_tokens"),
    }
    where = f"workload {path}: task {task_id} step {row['step_id']}"
    try:
        step = msgspec.convert(values, WorkloadStep)
    except msgspec.ValidationError as error:
        raise WorkloadError(f"{where}: {error}") from error
    for column in (
        "prompt_tokens",
        "output_tokens",
        "shared_prefix_tokens",
        "common_prefix_tokens",
    ):
        if getattr(step, column) < 0:
            raise WorkloadError(f"{where}: {column} is {getattr(step, column)}; it must be >= 0")
    for column in ("cpu_s", "think_or_tool_s"):
        if not getattr(step, column) >= 0.0:
            raise WorkloadError(f"{where}: {column} is {getattr(step, column)}; it must be >= 0")
    return step
