"""Steelyard's own spans as a workload: they say more than the conventions ask for.

What comes back is what `steelyard.ledger.recording.workload_of` makes of the log itself, but for
`common_prefix_tokens`: which prompts of other tasks begin alike is in no span.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.store.imports.record import Imported, ImportReport
from steelyard.store.imports.records import Record
from steelyard.telemetry import names


class OwnAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that went well.

    Attributes:
        task: Its task.
        agent: The task's agent.
        end_ns: When it ended.
        submitted_s: When the task arrived.
        deadline_s: The task's deadline; None without one.
        budget_usd: The task's budget; None without one.
        step: The step, its parents as they were told.
    """

    task: str
    agent: str
    end_ns: int
    submitted_s: float
    deadline_s: float | None
    budget_usd: float | None
    step: WorkloadStep


def is_own(told: Record) -> bool:
    """Are these the attributes of a span of Steelyard's?"""
    return names.STEP_ID in told or names.TASK_STATUS in told


def own_attempt(path: Path, row: int, span: Record, told: Record) -> OwnAttempt | None:
    """Which attempt is a span? None where it is none that went well.

    Args:
        path: The file, for messages.
        row: Number of the span, for messages.
        span: The span.
        told: Its attributes.

    Raises:
        WorkloadError: An attribute is missing or malformed.
    """
    if told.get(names.OUTCOME) != "ok":
        return None
    read = _Reader(path, row, told)
    begun_s = read.one("startTimeUnixNano", int, span) / 1_000_000_000
    return OwnAttempt(
        task=read.one(names.CONVERSATION, str),
        agent=read.one(names.AGENT, str),
        end_ns=read.one("endTimeUnixNano", int, span),
        submitted_s=read.one(names.TASK_SUBMITTED_S, float, default=begun_s),
        deadline_s=read.one(names.TASK_DEADLINE_S, float | None, default=None),
        budget_usd=read.one(names.TASK_BUDGET_USD, float | None, default=None),
        step=_tool(read) if told.get(names.STEP_KIND) == "tool" else _call(read),
    )


class _Reader:
    def __init__(self, path: Path, row: int, told: Record) -> None:
        self._path = path
        self._row = row
        self._told = told

    def one(
        self,
        name: str,
        kind: Any,  # noqa: ANN401 - a type, or a union of some
        told: Record | None = None,
        *,
        default: Any = ...,  # noqa: ANN401 - `...` where there must be one
    ) -> Any:  # noqa: ANN401 - of that type
        value = (self._told if told is None else told).get(name)
        if value is None and default is not ...:
            return default
        try:
            # Whole numbers are text in OTLP JSON.
            return msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError as error:
            raise WorkloadError(
                f"{self._path}: span {self._row}: {name} is {value!r}: {error}; write the spans "
                "anew with `steelyard traces export`"
            ) from error


def _call(read: _Reader) -> WorkloadStep:
    return WorkloadStep(
        step_id=read.one(names.STEP_ID, int),
        parents=read.one(names.STEP_PARENTS, tuple[int, ...], default=()),
        kind="llm",
        name=read.one(names.STEP_NAME, str),
        model=read.one(names.MODEL, str),
        prompt_tokens=read.one(names.INPUT_TOKENS, int),
        output_tokens=read.one(names.OUTPUT_TOKENS, int),
        max_output_tokens=read.one(names.MAX_TOKENS, int, default=0),
        shared_prefix_tokens=read.one(names.SHARED_PREFIX_TOKENS, int),
        recorded_s=read.one(names.WALL_S, float),
        cached_tokens=read.one(names.CACHED_TOKENS, int),
    )


def _tool(read: _Reader) -> WorkloadStep:
    wall_s = read.one(names.WALL_S, float)
    return WorkloadStep(
        step_id=read.one(names.STEP_ID, int),
        parents=read.one(names.STEP_PARENTS, tuple[int, ...], default=()),
        kind="tool",
        name=read.one(names.STEP_NAME, str),
        tool=read.one(names.TOOL, str),
        cpu_s=read.one(names.CPU_REFERENCE_S, float),
        think_or_tool_s=max(0.0, wall_s - read.one(names.CPU_S, float)),
        memory_bytes=read.one(names.MEMORY_BYTES, int),
        recorded_s=wall_s,
    )


def own_workload(
    path: Path, form: str, attempts: list[OwnAttempt], skipped: Counter[str]
) -> Imported:
    """Which workload are these attempts?

    Args:
        path: The file.
        form: Name of its format.
        attempts: At least one.
        skipped: Why other spans are none.

    Returns:
        The workload, its first task at 0 s, with the report.
    """
    tasks: dict[str, dict[int, OwnAttempt]] = {}
    # A step that its caller asked for twice counts once, as it was answered last.
    for one in sorted(attempts, key=lambda one: one.end_ns):
        tasks.setdefault(one.task, {})[one.step.step_id] = one
    start_s = min(one.submitted_s for one in attempts)
    made = [_task(task_id, steps, start_s) for task_id, steps in tasks.items()]
    made.sort(key=lambda task: (task.arrival_s, task.task_id))
    return Imported(
        workload=Workload(name=path.stem, tasks=tuple(made), source=f"{path} ({form})"),
        report=ImportReport(
            source=str(path),
            form=form,
            rows=len(attempts) + sum(skipped.values()),
            skipped=dict(sorted(skipped.items())),
            missing={"common_prefix_tokens": len(attempts)},
            assumed=("prompts of different tasks are taken to have nothing in common",),
        ),
    )


def _task(task_id: str, steps: dict[int, OwnAttempt], start_s: float) -> WorkloadTask:
    first = steps[min(steps)]
    submitted_s = min(one.submitted_s for one in steps.values())
    after_s = None if first.deadline_s is None else first.deadline_s - submitted_s
    return WorkloadTask(
        task_id=task_id,
        agent=first.agent,
        arrival_s=submitted_s - start_s,
        steps=tuple(_known(steps[number].step, steps) for number in sorted(steps)),
        deadline_after_s=after_s,
        budget_usd=first.budget_usd,
    )


def _known(step: WorkloadStep, steps: dict[int, OwnAttempt]) -> WorkloadStep:
    """Parents that failed are in no workload."""
    parents = tuple(parent for parent in step.parents if parent in steps)
    return msgspec.structs.replace(step, parents=parents)
