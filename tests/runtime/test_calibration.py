import asyncio
from collections.abc import AsyncGenerator

import pytest
from tests.runtime.conftest import MODEL, llm_spec

from steelyard.errors import PoolUnavailableError
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.runtime.calibration import calibrate, calibrate_embeddings

GUESS = llm_spec().llm_curves[MODEL]


class TimedPool(ScriptedLlmPool):
    """Takes 0.1 ms per word of the prompt and 1 ms per piece, whatever else runs."""

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        words = len(request.prompt.split())
        await asyncio.sleep(words * 1e-4)
        tokens = request.max_output_tokens or 1
        answer = ScriptedAnswer(pieces=("a",) * tokens, input_tokens=words)
        plain = ScriptedLlmPool((answer,))
        async for chunk in plain.complete(request, replica):
            if chunk.text:
                await asyncio.sleep(1e-3)
            yield chunk


async def test_a_curve_is_fitted_to_what_the_replica_did() -> None:
    curve = await calibrate(TimedPool(), MODEL, GUESS)
    assert not curve.predicted
    assert curve.source.startswith("calibrated on this machine, ")
    assert (curve.concurrency_cap, curve.context_tokens) == (8, 8192)
    # Bounds alone: how long a sleep takes is up to the machine.
    assert curve.prefill_s_per_token >= 1e-6
    assert curve.itl_base_s + curve.itl_slope_s >= 1e-3
    assert curve.itl_slope_s > 0.0
    assert curve.ttft_floor_s >= 0.0


async def test_embeddings_are_calibrated_by_their_own_texts() -> None:
    curve = await calibrate_embeddings(ScriptedLlmPool(embedding_dimensions=2), MODEL, GUESS)
    assert not curve.predicted
    assert curve.prefill_s_per_token >= 1e-6
    assert curve.ttft_floor_s >= 0.0
    assert (curve.itl_base_s, curve.context_tokens) == (GUESS.itl_base_s, GUESS.context_tokens)


async def test_an_endless_speed_still_gives_a_curve() -> None:
    pool = ScriptedLlmPool()
    curve = await calibrate(pool, MODEL, GUESS)
    assert min(curve.prefill_s_per_token, curve.itl_base_s, curve.itl_slope_s) > 0.0
    # One to warm up, two for prefill, one and eight streams for decoding; no prompt twice, since
    # a prefix cache would answer it.
    prompts = [request.prompt for request in pool.requests]
    assert len(prompts) == len(set(prompts)) == 12


async def test_a_replica_that_dies_is_not_hidden() -> None:
    pool = ScriptedLlmPool((ScriptedAnswer(error=PoolUnavailableError("it died")),))
    with pytest.raises(PoolUnavailableError, match="it died"):
        await calibrate(pool, MODEL, GUESS)
