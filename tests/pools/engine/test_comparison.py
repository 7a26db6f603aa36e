"""How engines are compared: with one that runs, and with some that cannot."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from steelyard.errors import PoolUnavailableError
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.engine import comparison
from steelyard.pools.engine.comparison import Variant, compare

_NATIVE, _F32 = Variant(engine="openvino"), Variant(engine="openvino", precision="f32")
_LLAMACPP = Variant(engine="llamacpp")
_BREAKS, _STREAMS = Variant(engine="llamacpp", precision="f32"), 8


class Pool:
    """Answers at once, unless its variant is to fail or to hang."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.closed = False
        self.answers = 0

    def models(self) -> tuple[str, ...]:
        return ("m",)

    async def start(self) -> None:
        if self.variant == _F32:
            await asyncio.Event().wait()
        if self.variant == _LLAMACPP:
            raise PoolUnavailableError("it died")

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        assert request.max_output_tokens
        assert replica == 0
        self.answers += 1
        if self.variant == _BREAKS and self.answers > _STREAMS:
            raise PoolUnavailableError("it broke")
        yield LlmChunk(index=0, text="x", finish_reason="stop")

    async def close(self) -> None:
        self.closed = True


async def test_measures_what_runs_and_tells_why_others_did_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pools: list[Pool] = []

    def pool(variant: Variant, model_path: Path, cache: Path) -> Pool:
        assert (model_path, cache) == (tmp_path, tmp_path / "cache")
        pools.append(Pool(variant))
        return pools[-1]

    monkeypatch.setattr(comparison, "_pool", pool)
    measured = await compare([_NATIVE, _LLAMACPP, _F32], tmp_path, tmp_path / "cache", limit_s=0.2)
    assert list(measured.wall_s) == ["openvino"]
    assert measured.failed == {
        "llamacpp": "it died",
        "openvino in f32": "no answer within 0.2 s of measuring",
    }
    assert [one.closed for one in pools] == [True] * 3


async def test_what_breaks_in_a_later_round_has_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pool(variant: Variant, model_path: Path, cache: Path) -> Pool:
        assert (model_path, cache) == (tmp_path, tmp_path / "cache")
        return Pool(variant)

    monkeypatch.setattr(comparison, "_pool", pool)
    measured = await compare([_NATIVE, _BREAKS], tmp_path, tmp_path / "cache")
    assert list(measured.wall_s) == ["openvino"]
    assert measured.failed == {"llamacpp in f32": "it broke"}
