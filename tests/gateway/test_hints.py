"""Hints of others: a session becomes the task, and draws its requests together."""

from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import Start

from steelyard.domain.events import StepPlaced
from steelyard.domain.task import LlmCall
from steelyard.gateway.exchange import Exchange, RequestHeaders
from steelyard.gateway.headers import TASK_ID, TaskHeaders
from steelyard.gateway.hints import hints_of, task_of, with_affinity, with_session
from steelyard.gateway.prefix import chat_prefixes

PROMPT: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


class _Nobody:
    def write(self, data: bytes) -> None:
        raise AssertionError(data)

    def answered(self, *, keep: bool) -> None:
        raise AssertionError(keep)

    async def drain(self) -> None:
        raise AssertionError

    def run(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError(exchange, work)

    def holds(self, quick: Any, *, on: bool, later: bool = True) -> None:
        raise AssertionError(quick, on)


def _exchange(headers: dict[str, str]) -> Exchange:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    line = ("POST", "/v1/chat/completions", "1.1")
    return Exchange(_Nobody(), line, RequestHeaders(pairs), keep_alive=True)


CASES: list[tuple[dict[str, str], dict[str, Any], str | None, str | None]] = [
    ({}, {}, None, None),
    ({"X-Dynamo-Session-ID": "run:a"}, {}, "run:a", "run:a"),
    (
        {"X-Dynamo-Session-ID": "run:a", "X-Dynamo-Parent-Session-ID": "run"},
        {"session_id": "other"},
        "run",
        "run:a",
    ),
    (
        {"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"},
        {},
        "s",
        "a",
    ),
    ({"session-id": "codex"}, {}, "codex", "codex"),
    ({"x-smg-routing-key": "k"}, {}, "k", "k"),
    ({}, {"nvext": {"agent_context": {"session_id": "n"}}}, "n", "n"),
    (
        {},
        {"agent_hint": {"session_id": "worker-7", "parent_session_id": "lead"}},
        "lead",
        "worker-7",
    ),
    (
        {},
        {"vllm_xargs": {"agentic_context": {"task_id": "t", "program_id": "t:lead"}}},
        "t",
        "t:lead",
    ),
    ({}, {"metadata": {"session_id": "m"}}, "m", "m"),
    ({}, {"litellm_session_id": "l"}, "l", "l"),
    ({}, {"nvext": 7, "agent_hint": [1], "metadata": None, "session_id": ""}, None, None),
    ({"x-session-id": "x" * 600}, {}, None, None),
]


@pytest.mark.parametrize(("headers", "body", "task", "key"), CASES)
def test_sessions_are_found_in_whose_words_ever(
    headers: dict[str, str], body: dict[str, Any], task: str | None, key: str | None
) -> None:
    hints = hints_of(_exchange(headers), body)
    assert (hints.task, hints.key) == (task, key)


def test_a_task_of_our_own_wins() -> None:
    hints = hints_of(_exchange({"x-session-id": "s"}), {})
    assert with_session(TaskHeaders(), hints).task_id == "s"
    assert with_session(TaskHeaders(task_id="t"), hints).task_id == "t"


@given(st.text(min_size=1, max_size=200))
def test_every_session_has_a_task_id(session: str) -> None:
    assert TASK_ID.fullmatch(task_of(session))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["nvext", "agent_context", "session_id", "metadata", "agent_hint"]),
                inner,
            )
            | st.lists(inner, max_size=2)
        ),
        max_leaves=8,
    )
)
def test_no_body_is_refused_for_its_hints(body: Any) -> None:
    hints_of(_exchange({}), body if isinstance(body, dict) else {})  # pyright: ignore[reportUnknownArgumentType]


@pytest.mark.parametrize("name", ["prompt_cache_key", "safety_identifier", "user"])
def test_a_key_of_affinity_is_a_boundary_of_one_token_in_front(name: str) -> None:
    plain = chat_prefixes("m", PROMPT, [])
    body = {name: "k"}
    keyed = with_affinity(plain, "m", hints_of(_exchange({}), body), body)
    assert keyed.hashes[1:] == plain.hashes
    assert keyed.tokens[0] == 1 < keyed.tokens[1]
    assert keyed.input_tokens == plain.input_tokens
    other = chat_prefixes("m", [{"role": "user", "content": "Something else"}], [])
    assert (
        with_affinity(other, "m", hints_of(_exchange({}), body), body).hashes[0]
        == (keyed.hashes[0])
    )


async def test_requests_of_a_session_are_steps_of_one_task(start: Start) -> None:
    async with start() as rig:
        for _ in range(2):
            body: dict[str, Any] = {"model": "scripted", "messages": PROMPT, "user": "someone"}
            headers = {"X-Dynamo-Session-ID": "run-42"}
            async with rig.http.post("/v1/chat/completions", json=body, headers=headers) as got:
                assert got.headers["steelyard-task"] == "run-42"
        body = {"model": "scripted", "input": "Hi", "metadata": {"session_id": "run-42"}}
        async with rig.http.post("/v1/responses", json=body) as got:
            assert got.headers["steelyard-task"] == "run-42"
        steps = [event.step for event in rig.of_kind(StepPlaced)]
        assert [step.step_id for step in steps] == [0, 1, 2]
        calls = [step.call for step in steps if isinstance(step.call, LlmCall)]
        assert calls[0].prefix_tokens[0] == 1
        assert calls[0].prefix_hashes[0] == calls[1].prefix_hashes[0]
