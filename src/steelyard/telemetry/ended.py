"""What is open between events, and the spans that it becomes."""

import math
from typing import Literal

import msgspec

from steelyard.domain.events import (
    AttemptFinished,
    StepPlaced,
    StepRecorded,
    StepRefused,
    TaskStatus,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.trace_context import TraceParent, span_id_of
from steelyard.ledger.ledger import AttemptRecord, TaskRecord
from steelyard.telemetry import names
from steelyard.telemetry.attributes import (
    Attributes,
    attempt_attributes,
    operation_of,
    step_attributes,
    task_attributes,
)
from steelyard.telemetry.span import Span, nanoseconds


class OpenAttempt(msgspec.Struct, kw_only=True):
    """An attempt that was placed.

    Attributes:
        placed: Its placement.
        started_s: When it started; None before.
    """

    placed: StepPlaced
    started_s: float | None = None

    def record(self, event: AttemptFinished) -> AttemptRecord:
        """The attempt that an event ends, as the ledger has it."""
        return AttemptRecord(
            step=self.placed.step,
            decision=self.placed.decision,
            placed_s=self.placed.t_s,
            started_s=self.started_s,
            finished_s=event.t_s,
            outcome=event.outcome,
            usage=event.usage,
            cost_usd=event.cost_usd,
            error_code=event.error_code,
        )


class OpenStep(msgspec.Struct, kw_only=True):
    """A step that was placed.

    Attributes:
        begun_s: When it was placed first.
        parent: The span below which it lies.
        span_id: Its own.
        open: Its attempts that have not ended, by number: two where one is a hedge.
        attempts: How many there were.
        failed: Its last attempt, where that failed and no other was placed yet.
        has_ended: Whether its own span was told; a hedge's loser may end after it.
    """

    begun_s: float
    parent: TraceParent
    span_id: str = ""
    open: dict[int, OpenAttempt] = {}
    attempts: int = 0
    failed: AttemptRecord | None = None
    has_ended: bool = False


class OpenTask(msgspec.Struct, kw_only=True):
    """A task that has not ended.

    Attributes:
        agent: Its agent; empty where this log does not tell.
        trace_id: Its trace.
        span_id: The span below which its steps lie.
        own_span_id: Its own, where that is another: it was retried.
        parent_span_id: The span that asked for it; empty without one.
        sampled: Whether the caller keeps its spans.
        submitted_s: When it arrived; None where this log does not tell.
        deadline_s: Its deadline.
        budget_usd: Its budget.
        steps: Open steps by number.
        done: Attempts that went well.
        waiting_s: When steps that wait began to.
        ended_s: When the last attempt ended, if one did.
        spent_usd: Cost of each attempt.
        children_usd: Cost of each child.
    """

    agent: str
    trace_id: str
    span_id: str = ""
    own_span_id: str = ""
    parent_span_id: str = ""
    sampled: bool = True
    submitted_s: float | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    steps: dict[int, OpenStep] = {}
    done: list[AttemptRecord] = []
    waiting_s: dict[int, float] = {}
    ended_s: list[float] = []
    spent_usd: list[float] = []
    children_usd: list[float] = []


def attempt_span(
    task: OpenTask, step: OpenStep, record: AttemptRecord, spec: PoolSpec | None, address: str
) -> Span:
    """The span of an attempt that ended.

    Args:
        task: Its task.
        step: Its step.
        record: The attempt.
        spec: Its pool; None where unknown.
        address: Base URL of its replica; empty where it has none.
    """
    asked = record.step
    earlier = sorted(
        (one for one in task.done if one.step.step_id < asked.step_id),
        key=lambda one: one.step.step_id,
    )
    told = attempt_attributes(record, spec, earlier, address)
    if task.submitted_s is not None:
        told[names.TASK_SUBMITTED_S] = task.submitted_s
    what = told.get(names.MODEL, told.get(names.TOOL, ""))
    begun_s = record.placed_s if record.started_s is None else record.started_s
    return Span(
        trace_id=step.parent.trace_id,
        span_id=span_id_of(asked.task_id, asked.step_id, asked.attempt),
        parent_span_id=step.span_id,
        name=f"{operation_of(asked)} {what}",
        kind="client",
        start_ns=nanoseconds(begun_s),
        end_ns=nanoseconds(record.finished_s),
        attributes=told,
        error_code=_code(record),
    )


def step_span(task: OpenTask, step: OpenStep, last: AttemptRecord) -> Span:
    """The span of a step, with its last attempt."""
    told = step_attributes(last.step) | {
        names.STEP_ATTEMPTS: step.attempts,
        names.POOL: last.decision.pool,
        names.REASON: last.decision.reason,
    }
    if last.decision.slack_s is not None:
        told[names.SLACK_S] = last.decision.slack_s
    if code := _code(last):
        told[names.ERROR] = code
    is_elsewhere = step.parent.span_id != task.span_id
    return Span(
        trace_id=step.parent.trace_id,
        span_id=step.span_id,
        parent_span_id=step.parent.span_id,
        name=f"step {last.step.name}",
        kind="internal",
        start_ns=nanoseconds(step.begun_s),
        end_ns=nanoseconds(last.finished_s),
        attributes=told,
        error_code=_code(last),
        linked_span_id=task.span_id if is_elsewhere else "",
        linked_trace_id=task.trace_id if is_elsewhere else "",
    )


def refused_span(event: StepRefused, parent: TraceParent) -> Span:
    """The span of a refusal: a moment."""
    step, refusal = event.step, event.refusal
    return Span(
        trace_id=parent.trace_id,
        # It may be placed after all, later.
        span_id=span_id_of(step.task_id, step.step_id, "refused", repr(event.t_s)),
        parent_span_id=parent.span_id,
        name=f"step {step.name}",
        kind="internal",
        start_ns=nanoseconds(event.t_s),
        end_ns=nanoseconds(event.t_s),
        attributes=step_attributes(step)
        | {
            names.STEP_ATTEMPTS: 0,
            names.REASON: refusal.reason,
            names.ERROR: refusal.error_code,
        },
        error_code=refusal.error_code,
    )


def recorded_span(task: OpenTask, event: StepRecorded, begun_s: float) -> Span:
    """The span of a step that no pool ran."""
    told: Attributes = {
        names.CONVERSATION: event.task_id,
        names.AGENT: task.agent,
        names.STEP_ID: event.step_id,
        names.STEP_NAME: event.name,
        names.STEP_KIND: event.kind,
        names.COST_USD: event.cost_usd,
    }
    if event.error_code:
        told[names.ERROR] = event.error_code
    return Span(
        trace_id=task.trace_id,
        span_id=span_id_of(event.task_id, event.step_id),
        parent_span_id=task.span_id,
        name=f"step {event.name}",
        kind="internal",
        start_ns=nanoseconds(begun_s),
        end_ns=nanoseconds(event.t_s),
        attributes=told,
        error_code=event.error_code,
    )


def task_span(
    task_id: str,
    task: OpenTask,
    status: TaskStatus | Literal["open"],
    ended_s: float,
    error_code: str = "",
) -> Span:
    """The span of a task.

    Args:
        task_id: The task.
        task: What is known of it.
        status: How it ended; `open` where a recorded log ends before it.
        ended_s: When.
        error_code: Why it failed; empty otherwise.
    """
    begun_s = ended_s if task.submitted_s is None else task.submitted_s
    record = TaskRecord(
        task_id=task_id,
        agent=task.agent,
        submitted_s=begun_s,
        finished_s=ended_s,
        deadline_s=task.deadline_s,
        budget_usd=task.budget_usd,
        status="cancelled" if status == "open" else status,
        cost_usd=math.fsum(task.spent_usd),
        error_code=error_code,
        children_usd=math.fsum(task.children_usd),
    )
    told = task_attributes(record)
    told[names.TASK_STATUS] = status
    return Span(
        trace_id=task.trace_id,
        span_id=task.own_span_id or task.span_id,
        parent_span_id=task.parent_span_id,
        name=f"invoke_agent {task.agent}",
        kind="internal",
        start_ns=nanoseconds(begun_s),
        end_ns=nanoseconds(ended_s),
        attributes=told,
        error_code=str(told.get(names.ERROR, "")),
    )


def _code(record: AttemptRecord) -> str:
    return (record.error_code or "_OTHER") if record.outcome == "failed" else ""
