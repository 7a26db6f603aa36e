"""What the contract tests cannot see of the adapter of llama.cpp: slots, snapshots and silence."""

import importlib.util
import time
from pathlib import Path

import pytest

from steelyard.errors import ConfigError
from steelyard.pools.engine import llamacpp
from steelyard.pools.engine.adapter import EngineDelta, EngineSettings, Sampling
from steelyard.pools.engine.llamacpp import LlamaCppAdapter
from steelyard.pools.engine.model import find_model

pytestmark = pytest.mark.engine

GREEDY = Sampling(max_output_tokens=3, temperature=0.0, top_p=1.0, seed=1)


@pytest.fixture(scope="module")
def adapter() -> LlamaCppAdapter:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    model = find_model()
    settings = EngineSettings(adapter="llamacpp", max_streams=2, cache_bytes=96 * 1024 * 1024)
    return LlamaCppAdapter(Path(model.path), settings, model.context_tokens)


def finish(adapter: LlamaCppAdapter, *handles: int) -> list[list[EngineDelta]]:
    deltas: dict[int, list[EngineDelta]] = {handle: [] for handle in handles}
    left = set(handles)
    until_s = time.monotonic() + 60
    while left:
        assert time.monotonic() < until_s
        adapter.step()
        for handle in sorted(left):
            delta = adapter.read(handle)
            deltas[handle].append(delta)
            if delta.finish is not None or delta.refused:
                left.remove(handle)
    return [deltas[handle] for handle in handles]


def text_of(deltas: list[EngineDelta]) -> bytes:
    return b"".join(piece for delta in deltas for piece in delta.pieces)


def test_its_context_is_what_the_cache_has_room_for(adapter: LlamaCppAdapter) -> None:
    # 96 MiB for two slots, 23,040 bytes a token, in steps of 256.
    assert adapter.context_tokens == 2048


def test_a_cache_without_room_for_a_context_is_refused() -> None:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    model = find_model()
    settings = EngineSettings(adapter="llamacpp", max_streams=2, cache_bytes=1024 * 1024)
    with pytest.raises(ConfigError, match="no room for 256 tokens"):
        LlamaCppAdapter(Path(model.path), settings, model.context_tokens)


def test_a_prefix_computed_in_one_slot_is_copied_to_another(adapter: LlamaCppAdapter) -> None:
    prefix = adapter.encode("A prefix that two agents share, word by word. " * 12)
    (alone,) = finish(adapter, adapter.add([*prefix, 5], GREEDY))
    assert alone[-1].cached_tokens == 0
    handles = [adapter.add([*prefix, token], GREEDY) for token in (6, 7)]
    for deltas in finish(adapter, *handles):
        assert deltas[-1].cached_tokens == len(prefix)
    (again,) = finish(adapter, adapter.add([*prefix, 5], GREEDY))
    assert text_of(again) == text_of(alone)


def test_characters_of_several_tokens_come_whole(adapter: LlamaCppAdapter) -> None:
    prompt = adapter.encode("A party: ")
    sampling = Sampling(
        max_output_tokens=30, temperature=0.0, top_p=1.0, seed=1, grammar='root ::= "🎉é🎊"'
    )
    (deltas,) = finish(adapter, adapter.add(prompt, sampling))
    assert text_of(deltas).decode() == "🎉é🎊"
    assert sum(delta.output_tokens for delta in deltas) > 3


def test_cancelling_frees_the_slot_at_any_time(adapter: LlamaCppAdapter) -> None:
    for steps in range(6):
        prompt = adapter.encode(f"Number {steps}, which nobody has asked for. " * 20)
        handle = adapter.add(prompt, GREEDY)
        for _ in range(steps):
            adapter.step()
        adapter.cancel(handle)
        adapter.cancel(handle)
    (deltas,) = finish(adapter, adapter.add(adapter.encode("One, two,"), GREEDY))
    assert deltas[-1].finish is not None


def test_a_grammar_that_cannot_be_read_is_refused_alone(adapter: LlamaCppAdapter) -> None:
    sampling = Sampling(
        max_output_tokens=3, temperature=0.0, top_p=1.0, seed=1, grammar='root ::= ("a"'
    )
    prompt = adapter.encode("One, two,")
    bad, good = finish(adapter, adapter.add(prompt, sampling), adapter.add(prompt, GREEDY))
    assert "grammar" in bad[-1].refused
    assert good[-1].finish is not None


def test_says_so_when_the_server_is_silent(
    adapter: LlamaCppAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = adapter.add(adapter.encode("Words that take a while. " * 40), GREEDY)
    monkeypatch.setattr(llamacpp, "_SILENCE_S", -1.0)

    def compute() -> None:
        # Whatever came is read; only then is there silence.
        for _ in range(100):
            adapter.step()

    with pytest.raises(RuntimeError, match="computed nothing"):
        compute()
    adapter.cancel(handle)
