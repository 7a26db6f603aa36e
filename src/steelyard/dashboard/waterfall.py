"""One task as a waterfall: each attempt's waiting, prefill and decode over the task's time."""

import math
from collections.abc import Sequence

import msgspec

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JsonValue,
    StepPlaced,
    StepRecorded,
    StepRefused,
    StepWaiting,
    TaskFinished,
    TaskRetried,
    Usage,
)
from steelyard.domain.task import Step
from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.runtime.journal import Journal

# Later rows are left out of the page; the log has them all.
MOST_BARS = 500
_MAX_RESULT_CHARS = 4000


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a bar.

    Attributes:
        phase: `wait`, `prefill`, `decode`, `tool`, `failed`, `running` or `other`.
        from_frac: Its start, as a share of the time shown.
        to_frac: Its end.
    """

    phase: str
    from_frac: float
    to_frac: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction beside what was measured; None where there is none.

    Attributes:
        what: What is compared.
        unit: `s`, `usd` or `tokens`.
        predicted: Before the attempt.
        measured: After it.
    """

    what: str
    unit: str
    predicted: float | None
    measured: float | None


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, or one step outside of pools.

    Attributes:
        step_id: The step.
        name: Its name.
        kind: What kind of step.
        attempt: From 0.
        parents: Steps whose results it used.
        outcome: `ok`, `failed`, `cancelled`, `running`, `waiting` or `refused`.
        spans: What is drawn.
        took_s: From placement to end, or until now.
        cost_usd: What it cost; None before its end.
        decision: Why it went where it went; None outside of pools.
        refusal: Why no pool took it; None when one did.
        compared: Predictions beside measurements.
        error: Why it failed.
        result: Its result as JSON, cut where long; empty without one.
    """

    step_id: int
    name: str
    kind: str
    attempt: int = 0
    parents: tuple[int, ...] = ()
    outcome: str
    spans: tuple[Span, ...] = ()
    took_s: float | None = None
    cost_usd: float | None = None
    decision: Decision | None = None
    refusal: Refusal | None = None
    compared: tuple[Compared, ...] = ()
    error: str = ""
    result: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether it is a tool that was never seen before: nothing is known of its time."""
        return self.kind == "tool" and self.decision is not None and _is_blind(self.decision)


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """A task's attempts over time.

    Attributes:
        start_s: Left edge, on the log's clock.
        length_s: Seconds shown.
        deadline_frac: Where the deadline stands; None without one, or outside.
        bars: In order of placement; at most `MOST_BARS`.
        left_out: Bars that are not shown.
        pools: Names of pools that worked on it.
        cost_usd: What its ended attempts and its children cost.
        retries: Attempts beyond each step's first, without those made beside one that was late.
        result: The task's result as JSON, cut where long.
        error: Why it failed.
        can_retry: Whether it has ended and may be retried.
    """

    start_s: float
    length_s: float
    deadline_frac: float | None
    bars: tuple[Bar, ...]
    left_out: int
    pools: tuple[str, ...]
    cost_usd: float
    retries: int
    result: str
    error: str
    can_retry: bool


class _Scale:
    def __init__(self, start_s: float, end_s: float) -> None:
        self.start_s = start_s
        self.length_s = max(end_s - start_s, 1e-3)

    def span(self, phase: str, from_s: float, to_s: float) -> Span:
        return Span(phase=phase, from_frac=self.frac(from_s), to_frac=self.frac(to_s))

    def frac(self, t_s: float) -> float:
        return min(1.0, max(0.0, (t_s - self.start_s) / self.length_s))


def waterfall(events: Sequence[Event], now_s: float) -> Waterfall:
    """How did a task go?

    Args:
        events: The task's events, in order.
        now_s: Time on the log's clock; open attempts are drawn up to here.

    Returns:
        What the page shows.
    """
    journal = Journal.of(events)
    ledger = Ledger.of(events)
    finished, submitted = journal.finished, journal.submitted
    end_s = now_s if finished is None else finished.finished_s
    start_s = submitted.t_s if submitted else events[0].t_s if events else now_s
    # An end that was taken for one after a silence is written long after the last step.
    seen_s = (event.t_s for event in events if not isinstance(event, TaskFinished))
    last_s = max(seen_s, default=end_s)
    scale = _Scale(start_s, max(end_s, last_s) if finished else end_s)
    bars = _bars(events, ledger, journal, scale, end_s)
    deadline_s = _deadline_s(events, journal)
    costs_usd = [one.cost_usd for one in ledger.attempts]
    costs_usd += [one.cost_usd for one in events if isinstance(one, StepRecorded)]
    inside = deadline_s is not None and start_s <= deadline_s <= start_s + scale.length_s
    return Waterfall(
        start_s=start_s,
        length_s=scale.length_s,
        deadline_frac=scale.frac(deadline_s) if deadline_s is not None and inside else None,
        bars=tuple(bars[:MOST_BARS]),
        left_out=max(0, len(bars) - MOST_BARS),
        pools=tuple(sorted({bar.decision.pool for bar in bars if bar.decision})),
        cost_usd=math.fsum(costs_usd),
        retries=_retries(events),
        result=shown_json(finished.result) if finished else "",
        error=finished.error if finished else "",
        can_retry=finished is not None and (finished.status != "succeeded" or finished.wrapped_up),
    )


def shown_json(value: JsonValue) -> str:
    """A value as indented JSON, a text as it is, cut where it is long; empty for nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    else:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    if len(text) <= _MAX_RESULT_CHARS:
        return text
    return f"{text[:_MAX_RESULT_CHARS]}\n... {len(text) - _MAX_RESULT_CHARS:,} characters more"


def _deadline_s(events: Sequence[Event], journal: Journal) -> float | None:
    for event in reversed(events):
        if isinstance(event, TaskRetried):
            return event.deadline_s
    return journal.submitted.deadline_s if journal.submitted else None


def _retries(events: Sequence[Event]) -> int:
    """How many attempts came after one that had ended?"""
    open_: set[tuple[int, int]] = set()
    retries = 0
    for event in events:
        if isinstance(event, StepPlaced):
            step = event.step
            retries += step.attempt > 0 and (step.step_id, step.attempt - 1) not in open_
            open_.add((step.step_id, step.attempt))
        elif isinstance(event, AttemptFinished):
            open_.discard((event.step_id, event.attempt))
    return retries


def _bars(
    events: Sequence[Event], ledger: Ledger, journal: Journal, scale: _Scale, end_s: float
) -> list[Bar]:
    ended = {(one.step.step_id, one.step.attempt): one for one in ledger.attempts}
    started_s = {
        (one.step_id, one.attempt): one.t_s for one in events if isinstance(one, AttemptStarted)
    }
    results = {one.step_id: one.result for one in journal.in_order()}
    errors = {
        (one.step_id, one.attempt): one.error for one in events if isinstance(one, AttemptFinished)
    }
    began_s = {one.step_id: one.t_s for one in events if isinstance(one, StepWaiting)}
    bars: list[Bar] = []
    for event in events:
        if isinstance(event, StepPlaced):
            key = (event.step.step_id, event.step.attempt)
            record = ended.get(key)
            if record is None:
                bars.append(_open_bar(event, started_s.get(key), scale, end_s))
            else:
                result = results.get(key[0]) if record.outcome == "ok" else None
                bars.append(_ended_bar(record, scale, errors.get(key, ""), shown_json(result)))
        elif isinstance(event, StepRefused):
            bars.append(_refused_bar(event.step, event.refusal, scale, event.t_s))
        elif isinstance(event, StepRecorded):
            bars.append(_recorded_bar(event, began_s.get(event.step_id), scale))
    return bars


def _ended_bar(record: AttemptRecord, scale: _Scale, error: str, result: str) -> Bar:
    step = record.step
    return Bar(
        step_id=step.step_id,
        name=step.name,
        kind=step.kind,
        attempt=step.attempt,
        parents=step.parents,
        outcome=record.outcome,
        spans=_spans(record, scale),
        took_s=record.latency_s,
        cost_usd=record.cost_usd,
        decision=record.decision,
        compared=_compared(record),
        error=error or record.error_code,
        result=result,
    )


def _spans(record: AttemptRecord, scale: _Scale) -> tuple[Span, ...]:
    started_s = record.finished_s if record.started_s is None else record.started_s
    spans = [scale.span("wait", record.placed_s, started_s)]
    first_s = record.usage.start_to_first_token_s
    if record.outcome == "failed":
        spans.append(scale.span("failed", started_s, record.finished_s))
    elif first_s is None:
        phase = "tool" if record.step.kind == "tool" else "decode"
        spans.append(scale.span(phase, started_s, record.finished_s))
    else:
        spans.append(scale.span("prefill", started_s, started_s + first_s))
        spans.append(scale.span("decode", started_s + first_s, record.finished_s))
    return tuple(spans)


def _is_blind(decision: Decision) -> bool:
    """A tool of which nothing is known is placed as if it took no time: that is no prediction."""
    return decision.predicted_finish_s <= decision.predicted_wait_s


def _compared(record: AttemptRecord) -> tuple[Compared, ...]:
    decision, usage, started_s = record.decision, record.usage, record.started_s
    blind = record.step.kind == "tool" and _is_blind(decision)
    waited_s = None if started_s is None else started_s - record.placed_s
    rows = [
        Compared(
            what="queue wait", unit="s", predicted=decision.predicted_wait_s, measured=waited_s
        ),
        Compared(
            what="placement to end",
            unit="s",
            predicted=None if blind else decision.predicted_finish_s,
            measured=record.latency_s,
        ),
        Compared(
            what="cost",
            unit="usd",
            predicted=None if blind else decision.predicted_cost_usd,
            measured=record.cost_usd,
        ),
    ]
    if record.step.kind == "llm":
        rows[1:1] = [
            Compared(
                what="start to first token",
                unit="s",
                predicted=decision.predicted_ttft_s,
                measured=usage.start_to_first_token_s,
            )
        ]
        rows += _token_rows(decision, usage)
    return tuple(rows)


def _token_rows(decision: Decision, usage: Usage) -> list[Compared]:
    return [
        Compared(
            what="cached prompt tokens",
            unit="tokens",
            predicted=decision.predicted_cached_tokens,
            measured=usage.cached_tokens,
        ),
        Compared(
            what="output tokens",
            unit="tokens",
            predicted=decision.predicted_output_tokens,
            measured=usage.output_tokens,
        ),
    ]


def _open_bar(event: StepPlaced, started_s: float | None, scale: _Scale, now_s: float) -> Bar:
    step = event.step
    begun_s = now_s if started_s is None else started_s
    spans = [scale.span("wait", event.t_s, begun_s), scale.span("running", begun_s, now_s)]
    return Bar(
        step_id=step.step_id,
        name=step.name,
        kind=step.kind,
        attempt=step.attempt,
        parents=step.parents,
        outcome="waiting" if started_s is None else "running",
        spans=tuple(spans),
        took_s=max(0.0, now_s - event.t_s),
        decision=event.decision,
    )


def _refused_bar(step: Step, refusal: Refusal, scale: _Scale, t_s: float) -> Bar:
    return Bar(
        step_id=step.step_id,
        name=step.name,
        kind=step.kind,
        attempt=step.attempt,
        parents=step.parents,
        outcome="refused",
        spans=(scale.span("failed", t_s, t_s),),
        refusal=refusal,
        error=f"refused ({refusal.cause.replace('_', ' ')}): {refusal.reason}",
    )


def _recorded_bar(event: StepRecorded, began_s: float | None, scale: _Scale) -> Bar:
    from_s = event.t_s if began_s is None else began_s
    return Bar(
        step_id=event.step_id,
        name=event.name,
        kind=event.kind,
        outcome="failed" if event.error_code else "ok",
        spans=(scale.span("failed" if event.error_code else "other", from_s, event.t_s),),
        took_s=None if began_s is None else event.t_s - began_s,
        cost_usd=event.cost_usd or None,
        error=event.error,
        result=shown_json(event.result),
    )
