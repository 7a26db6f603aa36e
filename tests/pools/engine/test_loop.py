"""The child's loop over an engine that does what the test wants."""

from typing import Any

from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.adapter import EngineDelta, EngineSettings, Sampling
from steelyard.pools.engine.frames import Broken, Done, FromChild, Piece, Rejected, Submit
from steelyard.pools.engine.loop import EngineLoop


class FakeAdapter:
    """Computes 4 prompt tokens a step and answers with the prompt's own letters."""

    context_tokens = 64
    block_tokens = 2
    cache_blocks = 100
    max_streams = 1000

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.answers: dict[int, list[int]] = {}
        self.cancelled: list[int] = []
        self.failures = 0

    def render_chat(self, messages: list[dict[str, str]]) -> str:
        return "".join(message["content"] for message in messages)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())[: self.context_tokens]

    def add(self, token_ids: list[int], sampling: Sampling) -> int:
        handle = len(self.left)
        self.left[handle] = len(token_ids)
        self.answers[handle] = token_ids[: sampling.max_output_tokens]
        return handle

    def step(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no such grammar")
        for handle in self.left:
            self.left[handle] -= 4

    def read(self, handle: int) -> EngineDelta:
        if self.left[handle] > 0:
            return EngineDelta()
        answer = self.answers[handle]
        token = answer.pop(0)
        return EngineDelta(
            output_tokens=1,
            token_ids=(token,),
            pieces=(bytes([token]),),
            logprobs=(-0.1,),
            finish=None if answer else "length",
        )

    def cancel(self, handle: int) -> None:
        self.cancelled.append(handle)


class Running:
    def __init__(self, **settings: Any) -> None:
        self.adapter = FakeAdapter()
        self.sent: list[FromChild] = []
        self.loop = EngineLoop(self.adapter, EngineSettings(**settings), self.sent.append)

    def submit(self, request_id: int, prompt: str, **fields: Any) -> None:
        request = LlmRequest(kind="completion", model="m", prompt=prompt, **fields)
        self.loop.submit(Submit(request_id, request))

    def finish(self) -> None:
        for _ in range(200):
            if not self.loop.running and not self.loop.waiting:
                return
            self.loop.step()
        raise AssertionError("the loop does not end")

    def text(self, request_id: int) -> str:
        pieces = [f.chunk for f in self.sent if isinstance(f, Piece) and f.request_id == request_id]
        return "".join(piece.text for piece in pieces)


def test_answers_requests_and_ends_each_with_its_usage() -> None:
    run = Running()
    run.submit(1, "abcdef", max_output_tokens=3)
    run.submit(2, "xyz", max_output_tokens=2)
    run.finish()
    assert (run.text(1), run.text(2)) == ("abc", "xy")
    last = [f.chunk for f in run.sent if isinstance(f, Piece) and f.request_id == 1][-1]
    assert last.usage is not None
    assert (last.usage.input_tokens, last.usage.output_tokens) == (6, 3)
    assert [f.request_id for f in run.sent if isinstance(f, Done)] == [2, 1]


def test_caps_the_answer_to_the_room_that_the_context_leaves() -> None:
    run = Running()
    run.submit(1, "a" * 60, max_output_tokens=50)
    run.submit(2, "b" * 100, max_output_tokens=1)
    run.finish()
    assert run.text(1) == "aaaa"
    assert [f.request_id for f in run.sent if isinstance(f, Rejected)] == [2]


def test_waits_for_a_prompt_that_is_just_being_computed() -> None:
    run = Running(warm_first_tokens=4)
    for request_id in (1, 2, 3):
        run.submit(request_id, "shared-prefix-" + str(request_id), max_output_tokens=1)
    run.submit(4, "other", max_output_tokens=1)
    run.loop.step()
    assert (run.loop.running, run.loop.waiting) == (2, 2)
    run.finish()
    usages = [f.chunk.usage for f in run.sent if isinstance(f, Piece) and f.chunk.usage]
    assert sorted(usage.cached_tokens for usage in usages) == [0, 0, 14, 14]


def test_runs_no_more_answers_at_once_than_allowed() -> None:
    run = Running(max_streams=2, warm_first_tokens=0)
    run.submit(1, "abcdefgh", n=3, max_output_tokens=2)
    run.loop.step()
    assert (run.loop.running, run.loop.waiting) == (2, 1)
    run.finish()
    assert run.text(1) == "ababab" or sorted(run.text(1)) == sorted("ababab")


def test_cancelling_drops_running_and_waiting_answers() -> None:
    run = Running(max_streams=1)
    run.submit(1, "abcdefgh", n=2, max_output_tokens=2)
    run.loop.step()
    run.loop.cancel(1)
    assert run.adapter.cancelled == [0]
    assert (run.loop.running, run.loop.waiting) == (0, 0)
    assert not run.sent


def test_a_stop_string_ends_the_sequence_in_the_engine_too() -> None:
    run = Running()
    run.submit(1, "abcdef", stop=("cd",), max_output_tokens=6)
    run.finish()
    assert run.text(1) == "ab"
    assert run.adapter.cancelled == [0]


def test_one_raising_step_rejects_the_request_with_the_new_schema_alone() -> None:
    run = Running()
    run.submit(1, "abcdefgh", max_output_tokens=2)
    run.submit(2, "abcd", json_schema={"type": "string"}, max_output_tokens=2)
    run.adapter.failures = 1
    run.finish()
    (rejected,) = [f for f in run.sent if isinstance(f, Rejected)]
    assert rejected.request_id == 2
    assert "no such grammar" in rejected.message
    assert run.text(1) == "ab"
    assert not run.loop.broken


def test_two_raising_steps_mean_that_the_engine_is_broken() -> None:
    run = Running()
    run.submit(1, "abcdefgh", max_output_tokens=2)
    run.adapter.failures = 2
    run.loop.step()
    run.loop.step()
    assert run.loop.broken
    assert isinstance(run.sent[-1], Broken)
