from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.books import Books
from tests.strategies import events

from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    Event,
    StepRecorded,
    StepWaiting,
    Usage,
)
from steelyard.domain.trace_context import span_id_of, trace_id_of
from steelyard.ledger.ledger import Ledger
from steelyard.telemetry import names
from steelyard.telemetry.fold import spans_of
from steelyard.telemetry.span import Span, nanoseconds

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


def _spans(books: Books) -> list[Span]:
    return list(spans_of(books.events))


def _one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_task_holds_its_steps_and_these_their_attempts() -> None:
    books = Books()
    books.open("fix-7", 1.0, agent="coder", deadline_s=60.0, budget_usd=0.5)
    usage = Usage(input_tokens=90, cached_tokens=40, output_tokens=7, wall_s=1.5)
    books.attempt("fix-7", 0, times_s=(1.0, 1.5, 3.0), usage=usage, cost_usd=0.25, agent="coder")
    books.close("fix-7", 4.0)
    spans = _spans(books)
    task, step, attempt = (
        _one(spans, one) for one in ("invoke_agent coder", "step work", "chat m")
    )
    assert {one.trace_id for one in spans} == {trace_id_of("fix-7")}
    assert (task.parent_span_id, step.parent_span_id) == ("", task.span_id)
    assert attempt.parent_span_id == step.span_id
    assert (step.start_ns, attempt.start_ns) == (nanoseconds(1.0), nanoseconds(1.5))
    told = attempt.attributes
    assert told[names.INPUT_TOKENS] == 90
    assert told[names.CACHED_TOKENS] == 40
    assert told[names.OUTPUT_TOKENS] == 7
    assert told[names.WAIT_S] == 0.5
    assert (told[names.COST_USD], task.attributes[names.COST_USD]) == (0.25, 0.25)
    assert (attempt.kind, task.error_code, task.attributes[names.TASK_MET_SLO]) == (
        "client",
        "",
        True,
    )


def test_a_step_goes_on_below_the_span_that_its_request_named() -> None:
    books = Books()
    books.open(TRACE, 1.0)
    books.attempt(TRACE, 0, times_s=(1.0, 1.0, 2.0), trace_parent=CALLER)
    other = CALLER.replace("00f067aa", "11f067aa")
    books.attempt(TRACE, 1, times_s=(2.0, 2.0, 3.0), trace_parent=other)
    books.close(TRACE, 4.0)
    spans = _spans(books)
    assert {one.trace_id for one in spans} == {TRACE}
    task = _one(spans, "invoke_agent a")
    steps = [one for one in spans if one.name == "step work"]
    assert task.parent_span_id == "00f067aa0ba902b7"
    assert [one.parent_span_id for one in steps] == ["00f067aa0ba902b7", "11f067aa0ba902b7"]
    assert {one.linked_span_id for one in steps} == {task.span_id}


def test_a_caller_that_keeps_no_spans_gets_none() -> None:
    books = Books()
    books.open(TRACE, 1.0)
    books.attempt(TRACE, 0, times_s=(1.0, 1.0, 2.0), trace_parent=CALLER[:-1] + "0")
    books.close(TRACE, 4.0)
    assert _spans(books) == []


def test_a_retried_step_is_one_span_with_two_attempts() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), outcome="failed", attempt=0)
    books.attempt("t", 0, times_s=(1.0, 1.0, 2.0), attempt=1)
    books.close("t", 2.0)
    spans = _spans(books)
    step = _one(spans, "step work")
    attempts = [one for one in spans if one.name == "chat m"]
    assert [one.error_code for one in attempts] == ["pool_unavailable", ""]
    assert attempts[0].attributes[names.ERROR] == "pool_unavailable"
    assert {one.parent_span_id for one in attempts} == {step.span_id}
    assert (step.error_code, step.attributes[names.STEP_ATTEMPTS]) == ("", 2)
    assert (step.start_ns, step.end_ns) == (0, nanoseconds(2.0))


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.parametrize("loser_ends_s", [2.0, 4.0])
def test_of_two_attempts_at_once_the_one_that_answered_ends_the_step(
    winner: int, loser_ends_s: float
) -> None:
    books = Books()
    books.open("t", 0.0)
    for number, placed_s in enumerate((0.5, 1.5)):
        is_winner = number == winner
        books.attempt(
            "t",
            0,
            attempt=number,
            times_s=(placed_s, placed_s, 3.0 if is_winner else loser_ends_s),
            outcome="ok" if is_winner else "cancelled",
            cost_usd=0.25,
        )
    books.close("t", 5.0)
    books.events.sort(key=lambda event: event.t_s)
    books.events[:] = [_hedged_away(event) for event in books.events]
    spans = _spans(books)
    step = _one(spans, "step work")
    told = {one.attributes[names.ATTEMPT]: one for one in spans if one.name == "chat m"}
    assert [one.attributes[names.OUTCOME] for _, one in sorted(told.items())] == [
        "ok" if number == winner else "cancelled" for number in (0, 1)
    ]
    assert [one.start_ns for _, one in sorted(told.items())] == [
        nanoseconds(0.5),
        nanoseconds(1.5),
    ]
    assert (step.end_ns, step.error_code) == (nanoseconds(3.0), "")
    assert step.attributes[names.STEP_ATTEMPTS] == 2
    assert _one(spans, "invoke_agent a").attributes[names.COST_USD] == 0.5
    assert len({one.span_id for one in spans}) == len(spans) == 4


def _hedged_away(event: Event) -> Event:
    if isinstance(event, AttemptFinished) and event.outcome == "cancelled":
        return msgspec.structs.replace(event, error_code=HEDGED_AWAY)
    return event


def test_a_client_that_leaves_two_attempts_leaves_one_step() -> None:
    books = Books()
    books.open("t", 0.0)
    for number in (0, 1):
        books.attempt(
            "t", 0, attempt=number, times_s=(0.0 + number, None, 2.0), outcome="cancelled"
        )
    books.close("t", 3.0, status="cancelled")
    books.events.sort(key=lambda event: event.t_s)
    assert _one(_spans(books), "step work").attributes[names.STEP_ATTEMPTS] == 2


def test_a_step_that_failed_for_good_ends_with_its_task() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), outcome="failed")
    books.close("t", 2.0, status="failed")
    spans = _spans(books)
    assert _one(spans, "step work").error_code == "pool_unavailable"
    assert _one(spans, "invoke_agent a").error_code == "task"


def test_a_child_lies_below_its_parent_and_waits_are_steps() -> None:
    books = Books()
    books.open("parent", 0.0)
    books.open("child", 1.0, parent="parent")
    shared: dict[str, Any] = {"task_id": "parent", "step_id": 0, "path": "0", "kind": "sleep"}
    named: dict[str, Any] = {**shared, "name": "pause", "fingerprint": ""}
    books.events.append(StepWaiting(t_s=1.0, **named))
    books.events.append(StepRecorded(t_s=5.0, **named))
    books.close("child", 6.0)
    books.close("parent", 7.0)
    child, parent = [one for one in _spans(books) if one.name == "invoke_agent a"]
    assert (child.trace_id, child.parent_span_id) == (parent.trace_id, parent.span_id)
    pause = _one(_spans(books), "step pause")
    assert (pause.start_ns, pause.end_ns) == (nanoseconds(1.0), nanoseconds(5.0))
    assert pause.parent_span_id == span_id_of("parent")


def test_an_open_task_of_a_recorded_log_ends_with_its_last_attempt() -> None:
    books = Books()
    books.open("named", 1.0)
    books.attempt("named", 0, times_s=(1.0, 1.0, 2.5))
    task = _one(_spans(books), "invoke_agent a")
    assert (task.end_ns, task.attributes[names.TASK_STATUS]) == (nanoseconds(2.5), "open")


@given(st.lists(events, max_size=20))
def test_any_log_folds_into_spans_with_ids_of_the_right_length(log: list[Event]) -> None:
    for span in spans_of(log):
        assert len(bytes.fromhex(span.trace_id)) == 16
        assert len(bytes.fromhex(span.span_id)) == 8
        assert span.span_id != span.parent_span_id


def test_spans_say_of_cost_and_number_what_the_ledger_says() -> None:
    books = Books()
    for number in range(5):
        books.open(f"t{number}", float(number))
        for step in range(4):
            at_s = number + step / 8
            books.attempt(
                f"t{number}", step, times_s=(at_s, at_s, at_s + 0.1), cost_usd=0.01 * (step + 1)
            )
        books.close(f"t{number}", number + 1.0)
    ledger = Ledger.of(books.events)
    spans = _spans(books)
    tasks = [one for one in spans if one.attributes.get(names.OPERATION) == "invoke_agent"]
    assert [one.attributes[names.COST_USD] for one in tasks] == [
        task.cost_usd for task in ledger.tasks
    ]
    attempts = [one for one in spans if one.name == "chat m"]
    assert [one.attributes[names.COST_USD] for one in attempts] == [
        attempt.cost_usd for attempt in ledger.attempts
    ]
    assert len(spans) == 5 + 20 + 20
    assert len({one.span_id for one in spans}) == len(spans)


def test_no_text_of_anybody_is_in_a_span() -> None:
    books = Books()
    books.open("t", 0.0, arguments={"secret": "hunter2"})
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0))
    books.close("t", 2.0)
    assert "hunter2" not in repr(_spans(books))


@pytest.mark.parametrize("t_s", [0.0, 0.1, 1_763_890_000.123456, 1_763_890_000.0])
def test_a_time_survives_nanoseconds_to_the_last_bit(t_s: float) -> None:
    assert nanoseconds(t_s) / 1_000_000_000 == t_s
