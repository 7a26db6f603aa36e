"""Events to spans: a task, below it its steps, below these their attempts. A fold of the log."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    AttemptStarted,
    Event,
    PoolAdded,
    RequestServed,
    StepPlaced,
    StepRecorded,
    StepRefused,
    StepWaiting,
    TaskFinished,
    TaskRetried,
    TaskStatus,
    TaskSubmitted,
    parts,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.trace_context import (
    TraceParent,
    parse_traceparent,
    span_id_of,
    trace_id_of,
)
from steelyard.ledger.ledger import AttemptRecord
from steelyard.telemetry.ended import (
    OpenAttempt,
    OpenStep,
    OpenTask,
    attempt_span,
    recorded_span,
    refused_span,
    step_span,
    task_span,
)
from steelyard.telemetry.span import Span

# A task that ends in another process is never seen to end here; the oldest are forgotten.
_MOST_OPEN_TASKS = 20_000
# Prompts of agents grow: what an earlier one shares, the latest ones do. All of them would cost
# the square of a task's length.
_REMEMBERED_ATTEMPTS = 64


class Folded(msgspec.Struct, frozen=True):
    """What an event ended.

    Attributes:
        spans: Spans that are whole now.
        attempt: The attempt that ended, for metrics; None where none did.
    """

    spans: tuple[Span, ...] = ()
    attempt: AttemptRecord | None = None


class SpanFold:
    """Makes spans of events, each when it is whole.

    A span's parent is who asked: of a step, the span that its own request named in `traceparent`,
    else its task's; of a task, its parent task's, else the span that the first request named, so
    that a caller's trace goes on. Where a caller does not keep its spans, neither do we.

    Args:
        addresses: Base URLs of the replicas of pools that have some, by pool. The log knows none.
    """

    def __init__(self, addresses: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._addresses: Mapping[str, tuple[str, ...]] = {} if addresses is None else addresses
        self._pools: dict[str, PoolSpec] = {}
        self._tasks: dict[str, OpenTask] = {}

    def apply(self, event: Event) -> Folded:
        """Which spans does an event end?

        Args:
            event: The next event of the log.
        """
        if not isinstance(event, RequestServed):
            return self._apply(event)
        folded = [self._apply(one) for one in parts(event)]
        spans = tuple(span for one in folded for span in one.spans)
        return Folded(spans, next((one.attempt for one in folded if one.attempt), None))

    def rest(self) -> Iterator[Span]:
        """What is left at the end of a recorded log: tasks that nobody ended, as far as they are.

        Those of which nothing is known but a name are left out.
        """
        for task_id, task in self._tasks.items():
            for step in task.steps.values():
                if step.failed is not None and task.sampled:
                    yield step_span(task, step, step.failed)
            if task.ended_s and task.sampled:
                yield task_span(task_id, task, "open", max(task.ended_s))
        self._tasks.clear()

    def _apply(self, event: Event) -> Folded:  # noqa: C901 - one case per event
        match event:
            case PoolAdded():
                self._pools[event.spec.name] = event.spec
            case TaskSubmitted():
                self._submit(event)
            case StepPlaced():
                self._place(event)
            case AttemptStarted():
                self._start(event)
            case AttemptFinished():
                return self._end_attempt(event)
            case StepRefused():
                return self._refuse(event)
            case StepWaiting():
                self._task(event.task_id).waiting_s[event.step_id] = event.t_s
            case StepRecorded():
                return self._record(event)
            case TaskRetried():
                self._retry(event)
            case TaskFinished():
                return self._end_task(event)
            case _:
                pass
        return Folded()

    def _task(self, task_id: str, agent: str = "") -> OpenTask:
        task = self._tasks.get(task_id)
        if task is None:
            if len(self._tasks) >= _MOST_OPEN_TASKS:
                del self._tasks[next(iter(self._tasks))]
            task = OpenTask(agent=agent, trace_id=trace_id_of(task_id))
            task.span_id = span_id_of(task_id)
            self._tasks[task_id] = task
        return task

    def _submit(self, event: TaskSubmitted) -> None:
        task = self._task(event.task_id)
        task.agent = event.agent
        task.submitted_s = event.t_s
        task.deadline_s, task.budget_usd = event.deadline_s, event.budget_usd
        if event.parent:
            above = self._tasks.get(event.parent)
            task.trace_id = trace_id_of(event.parent) if above is None else above.trace_id
            task.parent_span_id = span_id_of(event.parent)

    def _place(self, event: StepPlaced) -> None:
        step = event.step
        task = self._task(step.task_id, step.agent)
        caller = parse_traceparent(step.trace_parent)
        if caller is not None and not task.parent_span_id and not task.steps:
            task.trace_id, task.parent_span_id = caller.trace_id, caller.span_id
            task.sampled = caller.sampled
        opened = task.steps.get(step.step_id)
        if opened is None or opened.has_ended:
            parent = caller or TraceParent(task.trace_id, task.span_id, task.sampled)
            opened = OpenStep(begun_s=event.t_s, parent=parent)
            opened.span_id = span_id_of(step.task_id, step.step_id)
            task.steps[step.step_id] = opened
        opened.open[step.attempt] = OpenAttempt(placed=event)
        opened.failed = None
        opened.attempts += 1

    def _start(self, event: AttemptStarted) -> None:
        task = self._tasks.get(event.task_id)
        opened = None if task is None else task.steps.get(event.step_id)
        attempt = None if opened is None else opened.open.get(event.attempt)
        if attempt is not None:
            attempt.started_s = event.t_s

    def _end_attempt(self, event: AttemptFinished) -> Folded:
        task = self._tasks.get(event.task_id)
        opened = None if task is None else task.steps.get(event.step_id)
        attempt = None if opened is None else opened.open.pop(event.attempt, None)
        if task is None or opened is None or attempt is None:
            # Booked once already, or begun in another process.
            return Folded()
        record = attempt.record(event)
        task.spent_usd.append(event.cost_usd)
        task.ended_s = [max([event.t_s, *task.ended_s])]
        decision = record.decision
        urls = self._addresses.get(decision.pool, ())
        address = urls[decision.replica] if decision.replica < len(urls) else ""
        spans = [attempt_span(task, opened, record, self._pools.get(decision.pool), address)]
        if not opened.has_ended and record.error_code != HEDGED_AWAY:
            # After a failure another attempt may come; the step's span waits for it.
            opened.has_ended = record.outcome != "failed"
            opened.failed = None if opened.has_ended else record
            if opened.has_ended:
                spans.append(step_span(task, opened, record))
        if opened.has_ended and not opened.open:
            del task.steps[event.step_id]
        if record.outcome == "ok":
            task.done.append(record)
            del task.done[:-_REMEMBERED_ATTEMPTS]
        return Folded(tuple(spans) if opened.parent.sampled else (), record)

    def _refuse(self, event: StepRefused) -> Folded:
        task = self._task(event.step.task_id, event.step.agent)
        caller = parse_traceparent(event.step.trace_parent)
        parent = caller or TraceParent(task.trace_id, task.span_id, task.sampled)
        return Folded((refused_span(event, parent),) if parent.sampled else ())

    def _record(self, event: StepRecorded) -> Folded:
        """A step that no pool ran, or one that failed there for good."""
        task = self._task(event.task_id)
        if event.cost_usd:
            task.children_usd.append(event.cost_usd)
        opened = task.steps.pop(event.step_id, None)
        if not task.sampled:
            return Folded()
        if opened is not None and opened.failed is not None:
            return Folded((step_span(task, opened, opened.failed),))
        begun_s = task.waiting_s.pop(event.step_id, event.t_s)
        return Folded((recorded_span(task, event, begun_s),))

    def _retry(self, event: TaskRetried) -> None:
        """It goes on below the span of its first run; what it spent before is in that one."""
        task = self._task(event.task_id)
        task.submitted_s = event.t_s
        task.deadline_s, task.budget_usd = event.deadline_s, event.budget_usd
        task.parent_span_id = span_id_of(event.task_id)
        task.own_span_id = span_id_of(event.task_id, "retried", repr(event.t_s))

    def _end_task(self, event: TaskFinished) -> Folded:
        task = self._tasks.pop(event.task_id, None)
        if task is None or not task.sampled:
            return Folded()
        left = [step_span(task, one, one.failed) for one in task.steps.values() if one.failed]
        status: TaskStatus = event.status
        ended = task_span(event.task_id, task, status, event.finished_s, event.error_code)
        return Folded((*left, ended))


def spans_of(
    events: Iterable[Event], addresses: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[Span]:
    """Which spans does a recorded log hold?

    Args:
        events: The log, in order.
        addresses: See `SpanFold`.

    Yields:
        Every span when it ends; at the end, tasks that nobody ended.
    """
    fold = SpanFold(addresses)
    for event in events:
        yield from fold.apply(event).spans
    yield from fold.rest()
