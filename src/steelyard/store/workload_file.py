"""Workload and trace files: Parquet or JSON lines, one row per step.

The schema is that of docs/glossary.md. Missing columns and values are allowed where a default is
named below; a row that cannot be read is named by file, row and column.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    "wait_s": pl.Float64(),
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
_NEEDED = ("task_id", "step_id", "kind")
_KINDS = ("llm", "tool", "human")

_Row = dict[str, Any]


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


def _row(task: WorkloadTask, step: WorkloadStep) -> _Row:
    return {
        "task_id": task.task_id,
        "agent": task.agent,
        "step_id": step.step_id,
        "parents": list(step.parents),
        "kind": step.kind,
        "name": step.name,
        "arrival_s": task.arrival_s,
        "llm_s": step.recorded_s if step.kind == "llm" else None,
        "think_or_tool_s": _recorded_gap_s(step),
        "wait_s": step.think_or_tool_s if step.kind == "tool" else None,
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


def _recorded_gap_s(step: WorkloadStep) -> float | None:
    if step.kind == "human":
        return step.think_or_tool_s
    return step.recorded_s if step.kind == "tool" else None


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
    tasks: dict[str, list[_Row]] = {}
    for number, row in enumerate(_rows(path), start=1):
        if row["task_id"] is None:
            raise WorkloadError(f"workload {path}: row {number} has no task_id; fill it in")
        tasks.setdefault(str(row["task_id"]), []).append(row)
    if not tasks:
        raise WorkloadError(f"workload {path} holds no task; record or synthesize one")
    read = [_task(path, task_id, rows) for task_id, rows in tasks.items()]
    read.sort(key=lambda task: (task.arrival_s, task.task_id))
    return Workload(name=path.stem, tasks=tuple(read), source=str(path))


def _rows(path: Path) -> Iterator[_Row]:
    jsonl = path.suffix == ".jsonl"
    try:
        # Types are told from all rows: a column may well be empty in the first hundred.
        frame = pl.read_ndjson(path, infer_schema_length=None) if jsonl else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        form = "JSON lines" if jsonl else "Parquet"
        reason = str(error).splitlines()[0]
        raise WorkloadError(
            f"workload {path} cannot be read as {form}: {reason}; give a .parquet or .jsonl file"
        ) from error
    for column in _NEEDED:
        if column not in frame.columns:
            raise WorkloadError(
                f"workload {path} lacks the column {column}; it needs {', '.join(_NEEDED)}"
            )
    return frame.iter_rows(named=True)


def _task(path: Path, task_id: str, rows: list[_Row]) -> WorkloadTask:
    first = rows[0]
    steps = sorted((_step(path, task_id, row) for row in rows), key=lambda step: step.step_id)
    known: set[int] = set()
    for step in steps:
        where = f"workload {path}: task {task_id} step {step.step_id}"
        if step.step_id in known:
            raise WorkloadError(f"{where} is there twice; number the steps of a task")
        unknown = [parent for parent in step.parents if parent not in known]
        if unknown:
            raise WorkloadError(
                f"{where} has {unknown[0]} in parents, which is no earlier step; "
                "parents must have lower numbers"
            )
        known.add(step.step_id)
    where = f"workload {path}: task {task_id} step {first['step_id']}"
    return WorkloadTask(
        task_id=task_id,
        agent=str(first.get("agent") or path.stem),
        arrival_s=_amount(where, first, "arrival_s") or 0.0,
        steps=tuple(steps),
        deadline_after_s=_amount(where, first, "deadline_after_s"),
        budget_usd=_amount(where, first, "budget_usd"),
    )


def _step(path: Path, task_id: str, row: _Row) -> WorkloadStep:
    where = f"workload {path}: task {task_id} step {row['step_id']}"
    kind = row["kind"]
    if kind not in _KINDS:
        raise WorkloadError(f"{where}: kind is {kind!r}; it must be llm, tool or human")
    cpu_s = _amount(where, row, "cpu_s") or 0.0
    gap_s = _amount(where, row, "think_or_tool_s")
    wait_s = _amount(where, row, "wait_s")
    if wait_s is None:
        # Traces tell how long a tool took in all; its CPU time is part of that.
        wait_s = max(0.0, (gap_s or 0.0) - (cpu_s if kind == "tool" else 0.0))
    return WorkloadStep(
        step_id=_needed_count(where, row, "step_id"),
        parents=_parents(where, row),
        kind=kind,
        name=str(row.get("name") or row.get("tool") or kind),
        model=str(row.get("model") or ""),
        tool=str(row.get("tool") or ""),
        prompt_tokens=_count(where, row, "prompt_tokens") or 0,
        output_tokens=_count(where, row, "output_tokens") or 0,
        max_output_tokens=_count(where, row, "max_output_tokens"),
        shared_prefix_tokens=_count(where, row, "shared_prefix_tokens") or 0,
        common_prefix_tokens=_count(where, row, "common_prefix_tokens") or 0,
        cpu_s=cpu_s,
        think_or_tool_s=0.0 if kind == "llm" else wait_s,
        memory_bytes=int((_amount(where, row, "mem_mb") or 0.0) * BYTES_PER_MIB),
        recorded_s=_amount(where, row, "llm_s") if kind == "llm" else gap_s,
        cached_tokens=_count(where, row, "cached_tokens"),
    )


def _parents(where: str, row: _Row) -> tuple[int, ...]:
    parents: Any = row.get("parents") or ()
    if not isinstance(parents, list | tuple):
        raise WorkloadError(f"{where}: parents is {parents!r}; it must be a list of step numbers")
    found: list[Any] = [*parents]
    return tuple(_needed_count(where, {"parents": one}, "parents") for one in found)


def _needed_count(where: str, row: _Row, column: str) -> int:
    count = _count(where, row, column)
    if count is None:
        raise WorkloadError(f"{where}: {column} is missing; it must be a whole number")
    return count


def _count(where: str, row: _Row, column: str) -> int | None:
    value = _amount(where, row, column)
    if value is not None and value != int(value):
        raise WorkloadError(f"{where}: {column} is {value}; it must be a whole number")
    # Not by way of the float, which would round numbers above 2**53.
    return None if value is None else int(row[column])


def _amount(where: str, row: _Row, column: str) -> float | None:
    """A number of 0 or more; None where the column or the value is missing."""
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WorkloadError(f"{where}: {column} is {value!r}; it must be a number")
    if not (value >= 0 and math.isfinite(value)):
        raise WorkloadError(f"{where}: {column} is {value}; it must be a finite number >= 0")
    return float(value)
