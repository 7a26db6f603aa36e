"""Which task a request is, and until when, over the wire."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished, StepPlaced, TaskFinished, TaskSubmitted
from steelyard.gateway.headers import header_value

BODY: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


async def _ask(rig: Rig, headers: dict[str, str]) -> tuple[int, dict[str, Any], str]:
    async with rig.http.post("/v1/chat/completions", json=BODY, headers=headers) as response:
        return response.status, await response.json(), response.headers.get("steelyard-task", "")


async def test_a_named_task_is_opened_once_and_stays_open(start: Start) -> None:
    named = {
        "Steelyard-Task": "trip-1",
        "Steelyard-Agent": "planner",
        "Steelyard-Step": "outline",
        "Steelyard-Deadline": "30",
        "Steelyard-Budget-Usd": "0.5",
    }
    async with start() as rig:
        assert (await _ask(rig, named))[2] == "trip-1"
        await _ask(rig, {"Steelyard-Task": "trip-1", "Steelyard-Deadline": "5"})
        [opened] = rig.of_kind(TaskSubmitted)
        assert (opened.task_id, opened.agent, opened.budget_usd) == ("trip-1", "planner", 0.5)
        first, second = (event.step for event in rig.of_kind(StepPlaced))
        assert (first.step_id, first.name) == (0, "outline")
        assert (second.step_id, second.name, second.parents) == (1, "chat", (0,))
        # The first request's deadline holds for the task; it does not slide.
        assert first.deadline_s == second.deadline_s == opened.deadline_s
        assert opened.deadline_s == pytest.approx(opened.t_s + 30.0, abs=1.0)
        assert second.agent == "planner"
        assert rig.of_kind(TaskFinished) == []


async def test_the_trace_id_of_a_traceparent_is_the_task(start: Start) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with start() as rig:
        sent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert (await _ask(rig, sent))[2] == trace
        both = {**sent, "Steelyard-Task": "mine"}
        assert (await _ask(rig, both))[2] == "mine"
        invalid = {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}
        assert (await _ask(rig, invalid))[2] not in {trace, "0" * 32}


async def test_a_rfc_3339_deadline_is_absolute(start: Start) -> None:
    async with start() as rig:
        await _ask(rig, {"Steelyard-Task": "t", "Steelyard-Deadline": "2096-01-01T00:00:00Z"})
        [opened] = rig.of_kind(TaskSubmitted)
        assert opened.deadline_s == 3976214400.0


async def test_an_idempotency_key_of_the_task_numbers_the_step_and_keeps_the_answer(
    start: Start,
) -> None:
    async with start() as rig:
        await _ask(rig, {"Steelyard-Task": "t", "Idempotency-Key": "t/17"})
        await _ask(rig, {"Steelyard-Task": "t", "Idempotency-Key": "other/3"})
        first, second = (event.step.step_id for event in rig.of_kind(StepPlaced))
        assert first == 17
        assert second != 3
        kept, plain = rig.of_kind(AttemptFinished)
        assert '"text":"Hello world"' in msgspec.json.encode(kept.result).decode()
        assert plain.result is None


BAD_HEADERS = [
    ("Steelyard-Task", "a/b"),
    ("Steelyard-Task", "x" * 129),
    ("Steelyard-Agent", " " * 200 + "é"),
    ("Steelyard-Deadline", "soon"),
    ("Steelyard-Deadline", "-3"),
    ("Steelyard-Deadline", "nan"),
    ("Steelyard-Deadline", "2096-01-01T00:00:00"),
    ("Steelyard-Budget-Usd", "-1"),
    ("Steelyard-Budget-Usd", "1_0"),
    ("Steelyard-Budget-Usd", "inf"),
    ("Steelyard-Priority", "11"),
    ("Steelyard-Priority", "1.5"),
    ("Steelyard-On-Miss", "panic"),
]


async def test_a_bad_header_is_named_and_opens_no_task(start: Start) -> None:
    async with start() as rig:
        for name, value in BAD_HEADERS:
            status, body, _ = await _ask(rig, {name: value})
            assert (status, body["error"]["param"]) == (400, name), value
        assert rig.of_kind(TaskSubmitted) == []


async def test_a_step_beyond_its_budget_is_402(start: Start) -> None:
    async with start() as rig:
        status, body, _ = await _ask(rig, {"Steelyard-Budget-Usd": "0"})
        assert status == 402
        assert body["error"]["code"] == "budget_exceeded"
        assert "lab: over budget" in body["error"]["message"]


async def test_a_deadline_that_no_pool_meets_is_503_with_the_earliest_end(start: Start) -> None:
    async with start() as rig:
        impossible = {"Steelyard-Deadline": "0.0000001", "Steelyard-On-Miss": "refuse"}
        status, body, _ = await _ask(rig, impossible)
        assert status == 503
        assert body["error"]["code"] == "no_feasible_pool"
        assert "earliest" in body["error"]["message"]
        run_late = {**impossible, "Steelyard-On-Miss": "run_late"}
        assert (await _ask(rig, run_late))[0] == 200


@given(st.text(max_size=600))
def test_any_text_becomes_one_safe_header_line(text: str) -> None:
    value = header_value(text)
    assert len(value) <= 512
    assert not any(byte < 0x20 or 0x7F <= byte <= 0x9F for byte in value)
