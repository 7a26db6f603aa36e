"""One task over time."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.store_of_tasks import fill
from tests.strategies import events as any_events

from steelyard.dashboard.waterfall import shown_json, waterfall
from steelyard.domain.events import (
    Event,
    StepPlaced,
    StepRecorded,
    StepWaiting,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventStore]:
    path: Path = tmp_path_factory.mktemp("waterfall") / "log.db"
    fill(path, 60, now_s=1_800_000_000.0)
    with open_store(path) as opened:
        yield opened


def test_bars_cover_each_attempt_from_placement_to_end(store: EventStore) -> None:
    fall = waterfall(store.journal("task-000059").result(), now_s=1_800_000_100.0)
    assert [bar.kind for bar in fall.bars] == ["llm", "tool", "llm", "tool"]
    assert [span.phase for span in fall.bars[0].spans] == ["wait", "prefill", "decode"]
    assert [span.phase for span in fall.bars[1].spans] == ["wait", "tool"]
    for bar in fall.bars:
        edges = [edge for span in bar.spans for edge in (span.from_frac, span.to_frac)]
        assert edges == sorted(edges)
        assert bar.outcome == "ok"
        assert bar.compared[0].measured is not None
    assert fall.bars[1].parents == (0,)
    assert not fall.can_retry


def test_what_is_placed_as_if_it_took_no_time_is_no_prediction(store: EventStore) -> None:
    events = store.journal("task-000059").result()
    blind = [
        msgspec.structs.replace(
            one, decision=msgspec.structs.replace(one.decision, predicted_finish_s=0.0)
        )
        if isinstance(one, StepPlaced) and one.step.kind == "tool"
        else one
        for one in events
    ]
    bars = waterfall(blind, now_s=1_800_000_100.0).bars
    assert [bar.is_unknown for bar in bars] == [False, True, False, True]
    told = {one.what: one.predicted for one in bars[1].compared}
    assert (told["placement to end"], told["cost"]) == (None, None)
    assert not any(bar.is_unknown for bar in waterfall(events, now_s=1_800_000_100.0).bars)


def test_a_failed_step_and_an_open_one_say_so(store: EventStore) -> None:
    failed = waterfall(store.journal("task-000003").result(), now_s=1_800_000_100.0)
    assert failed.bars[-1].spans[-1].phase == "failed"
    assert failed.bars[-1].error == "exit code 1"
    assert failed.can_retry
    events = store.journal("task-000007").result()
    going_on = waterfall(events, now_s=events[-1].t_s + 5.0)
    assert going_on.bars[-1].outcome == "running"
    assert going_on.bars[-1].spans[-1].to_frac == 1.0
    assert not going_on.can_retry


def test_steps_outside_of_pools_and_children_are_drawn_and_paid() -> None:
    events: tuple[Event, ...] = (
        TaskSubmitted(t_s=0.0, task_id="t", agent="a", deadline_s=5.0),
        StepWaiting(
            t_s=1.0, task_id="t", step_id=0, path="0", kind="child", name="c", fingerprint=""
        ),
        StepRecorded(
            t_s=9.0,
            task_id="t",
            step_id=0,
            path="0",
            kind="child",
            name="c",
            fingerprint="",
            cost_usd=0.25,
        ),
        TaskFinished(t_s=10.0, task_id="t", status="succeeded", result={"x": 1}),
    )
    fall = waterfall(events, now_s=99.0)
    (bar,) = fall.bars
    assert (bar.took_s, bar.spans[0].from_frac, bar.spans[0].to_frac) == (8.0, 0.1, 0.9)
    assert (fall.cost_usd, fall.deadline_frac, fall.length_s) == (0.25, 0.5, 10.0)
    assert '"x": 1' in fall.result


def test_a_task_that_ended_in_silence_is_drawn_up_to_its_last_step(store: EventStore) -> None:
    steps = store.journal("task-000059").result()[:-1]
    last_s = max(event.t_s for event in steps)
    end = TaskFinished(
        t_s=last_s + 600.0, task_id="task-000059", status="succeeded", ended_s=last_s
    )
    fall = waterfall((*steps, end), now_s=last_s + 900.0)
    assert fall.length_s == last_s - fall.start_s
    assert fall.bars[-1].spans[-1].to_frac == 1.0


@given(st.lists(any_events, max_size=20))
def test_any_log_can_be_drawn(log: list[Event]) -> None:
    fall = waterfall(log, now_s=0.0)
    for bar in fall.bars:
        for span in bar.spans:
            assert 0.0 <= span.from_frac <= 1.0
            assert 0.0 <= span.to_frac <= 1.0


def test_a_long_result_is_cut_and_says_how_much() -> None:
    shown = shown_json("x" * 5000)
    assert len(shown) < 4100
    assert shown.endswith("characters more")
    assert shown_json(None) == ""
