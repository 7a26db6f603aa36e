"""Plain CSV (or JSON lines) with a column mapping of the user's own."""

import difflib
import math
from collections import Counter
from pathlib import Path

from steelyard.domain.units import BYTES_PER_MIB
from steelyard.errors import WorkloadError
from steelyard.store.imports.assemble import assemble, count_of, seconds_of
from steelyard.store.imports.record import Imported, SeenStep
from steelyard.store.imports.records import Record, records_of

FORM = "csv"

COLUMNS = (
    "task_id", "agent", "kind", "name", "start_s", "end_s", "duration_s", "model", "tool",
    "prompt_tokens", "output_tokens", "cached_tokens", "shared_prefix_tokens",
    "max_output_tokens", "cpu_s", "mem_mb",
)  # fmt: skip


def mapping_of(text: str) -> dict[str, str]:
    """Which column of the file is which of ours?

    Args:
        text: `ours=theirs,...`.

    Returns:
        Our names to theirs; names that are not mapped stand for themselves.

    Raises:
        WorkloadError: A part is no pair, or names no column of ours.

    >>> mapping_of("prompt_tokens=in_tok")["prompt_tokens"]
    'in_tok'
    """
    mapping = {name: name for name in COLUMNS}
    for part in filter(None, text.split(",")):
        ours, equals, theirs = (one.strip() for one in part.partition("="))
        if not equals or not theirs:
            raise WorkloadError(f"--map {part!r} is no pair; write prompt_tokens=in_tok,...")
        if ours not in COLUMNS:
            near = difflib.get_close_matches(ours, COLUMNS, n=2)
            cure = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(COLUMNS)}"
            raise WorkloadError(f"--map {part!r}: {ours!r} is no column of a workload; {cure}")
        mapping[ours] = theirs
    return mapping


def read(path: Path, mapping: dict[str, str]) -> Imported:
    """Which tasks does this table hold, one step per row?

    Args:
        path: CSV, JSON lines or JSON.
        mapping: Our column names to the file's, from `mapping_of`.

    Returns:
        The workload and the report.

    Raises:
        WorkloadError: A mapped column is not there, or a value is wrong.
    """
    seen: list[SeenStep] = []
    for row, record in records_of(path):
        if row == 1:
            _check_columns(path, record, mapping)
        seen.append(_step(path, row, record, mapping))
    return assemble(path, FORM, seen, Counter())


def _check_columns(path: Path, record: Record, mapping: dict[str, str]) -> None:
    for ours, theirs in mapping.items():
        if theirs not in record and (ours != theirs or ours == "start_s"):
            raise WorkloadError(
                f"{path} has no column {theirs!r} for {ours}; it has {', '.join(record)}; "
                f"map another one with --map {ours}=..."
            )


def _step(path: Path, row: int, record: Record, mapping: dict[str, str]) -> SeenStep:
    def told(ours: str) -> object:
        value = record.get(mapping[ours])
        return None if value == "" else value

    def where(ours: str) -> str:
        return f"row {row}, column {mapping[ours]}"

    def count(ours: str) -> int | None:
        return count_of(path, where(ours), told(ours))

    def amount(ours: str) -> float | None:
        value = told(ours)
        if value is None:
            return None
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not (number >= 0.0 and math.isfinite(number)):
            raise WorkloadError(
                f"{path}: {where(ours)} is {value!r}; it must be a finite number of 0 or more"
            )
        return number

    start_s = seconds_of(path, where("start_s"), told("start_s"))
    end = told("end_s")
    duration_s = amount("duration_s")
    end_s = None if end is None else seconds_of(path, where("end_s"), end)
    if end_s is None and duration_s is not None:
        end_s = start_s + duration_s
    kind = str(told("kind") or ("tool" if told("tool") else "llm"))
    if kind not in {"llm", "tool"}:
        raise WorkloadError(f"{path}: {where('kind')} is {kind!r}; it must be llm or tool")
    memory_mb = amount("mem_mb")
    return SeenStep(
        row=row,
        task=str(told("task_id") or f"r{row}"),
        kind="llm" if kind == "llm" else "tool",
        start_s=start_s,
        end_s=end_s,
        agent=str(told("agent") or ""),
        name=str(told("name") or ""),
        model=str(told("model") or ""),
        tool=str(told("tool") or ""),
        prompt_tokens=count("prompt_tokens"),
        output_tokens=count("output_tokens"),
        cached_tokens=count("cached_tokens"),
        shared_prefix_tokens=count("shared_prefix_tokens"),
        max_output_tokens=count("max_output_tokens"),
        cpu_s=amount("cpu_s"),
        memory_bytes=None if memory_mb is None else int(memory_mb * BYTES_PER_MIB),
    )
