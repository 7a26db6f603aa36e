"""Earlier responses are kept for a while, in bounded memory, and for their owner alone."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steelyard.gateway.responses_memory import ResponsesMemory

ME, YOU = b"me", b"you"


class _Clock:
    def __init__(self) -> None:
        self.t_s = 0.0

    def __call__(self) -> float:
        return self.t_s


def _response(name: str, text: str = "") -> dict[str, Any]:
    return {"id": name, "output": [{"said": f"{name}{text}"}]}


def _said(items: list[dict[str, Any]] | None) -> list[str] | None:
    return None if items is None else [next(iter(item.values())) for item in items]


def test_a_conversation_is_its_inputs_and_outputs_in_order() -> None:
    memory = ResponsesMemory(_Clock())
    memory.keep(ME, _response("a"), [{"asked": "1"}], None)
    memory.keep(ME, _response("b"), [{"asked": "2"}], "a")
    memory.keep(ME, _response("c"), [{"asked": "3"}], "a")
    assert _said(memory.items(ME, "b")) == ["1", "a", "2", "b"]
    assert _said(memory.items(ME, "c")) == ["1", "a", "3", "c"]
    assert memory.items(YOU, "b") is None
    assert memory.response(YOU, "b") is None
    assert not memory.forget(YOU, "b")


def test_a_response_is_kept_for_an_hour_from_its_last_use() -> None:
    clock = _Clock()
    memory = ResponsesMemory(clock)
    memory.keep(ME, _response("a"), [], None)
    clock.t_s = 3000.0
    memory.keep(ME, _response("b"), [], "a")
    clock.t_s = 6500.0
    assert _said(memory.items(ME, "b")) == ["a", "b"]
    clock.t_s = 10_101.0
    assert memory.items(ME, "a") is None


def test_what_follows_a_forgotten_response_cannot_go_on() -> None:
    memory = ResponsesMemory(_Clock())
    memory.keep(ME, _response("a"), [], None)
    memory.keep(ME, _response("b"), [], "a")
    assert memory.forget(ME, "a")
    assert memory.items(ME, "b") is None
    assert memory.response(ME, "b") is not None


def test_one_that_is_larger_than_the_memory_is_not_kept() -> None:
    memory = ResponsesMemory(_Clock(), kept_bytes=2000)
    memory.keep(ME, _response("a", "x" * 3000), [], None)
    assert memory.items(ME, "a") is None
    memory.keep(ME, _response("b"), [], None)
    assert _said(memory.items(ME, "b")) == ["b"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 9), st.integers(0, 900)), max_size=40))
def test_memory_is_bounded_and_no_kept_one_lost_its_predecessor(
    kept: list[tuple[int, int, int]],
) -> None:
    memory = ResponsesMemory(_Clock(), kept_bytes=4000)
    whole: set[str] = set()
    for number, (name, before, size) in enumerate(kept):
        previous = None if before < 0 else f"r{before}"
        if previous is not None and memory.items(ME, previous) is None:
            previous = None
        # A name comes once: ids are drawn.
        memory.keep(ME, _response(f"r{name}.{number}", "x" * size), [], previous)
        if name % 2:
            memory.keep(ME, _response(f"r{name}"), [], None)
        whole.add(f"r{name}.{number}")
    sizes = [len(memory.response(ME, one) or b"") for one in whole]
    assert sum(sizes) <= 4000
    for one in whole:
        assert (memory.response(ME, one) is None) == (memory.items(ME, one) is None)
