"""How fast is an embedded replica on this machine? A few seconds of measurement at start-up."""

import asyncio
import time
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec

from steelyard.domain.pool import LlmCurve
from steelyard.pools.backend import LlmBackend, LlmRequest

_SHORT_WORDS = 40
_LONG_WORDS = 440
_DECODE_TOKENS = 24
_STREAMS = 8
_TEXTS = 32
# A slope below this is noise; itl(c) never falls with more streams.
_MIN_SLOPE_S = 1e-6
_MIN_PREFILL_S_PER_TOKEN = 1e-6


class _Timing(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int
    ttft_s: float
    e2e_s: float


async def calibrate(backend: LlmBackend, model: str, guess: LlmCurve) -> LlmCurve:
    """Measure prefill and decode of replica 0 and fit a curve.

    Prefill from two prompt lengths, itl(c) from one and from eight streams: two points for each
    line. Thin: no repetition and no error estimate; `steelyard measure` will do that. Predictions
    are corrected by every step that runs later.

    Args:
        backend: A started pool, idle.
        model: Name of the model.
        guess: Caps and context are taken over from it.

    Returns:
        The measured curve.

    Raises:
        PoolError: The replica failed.
    """
    # The first request of a fresh process pays for warming up; it is measured by nobody.
    await _measure(backend, model, _words(_SHORT_WORDS, "warm-up"), 2)
    short = await _measure(backend, model, _words(_SHORT_WORDS, "short"), 1)
    long = await _measure(backend, model, _words(_LONG_WORDS, "long"), 1)
    tokens = max(1, long.input_tokens - short.input_tokens)
    per_token_s = max(_MIN_PREFILL_S_PER_TOKEN, (long.ttft_s - short.ttft_s) / tokens)
    one = await _measure(backend, model, _words(_SHORT_WORDS, "one"), _DECODE_TOKENS)
    many = await asyncio.gather(
        *(
            _measure(backend, model, _words(_SHORT_WORDS, f"stream {n}"), _DECODE_TOKENS)
            for n in range(_STREAMS)
        )
    )
    itl_one_s = _itl_s(one)
    itl_many_s = sorted(_itl_s(timing) for timing in many)[len(many) // 2]
    slope_s = max(_MIN_SLOPE_S, (itl_many_s - itl_one_s) / (_STREAMS - 1))
    return msgspec.structs.replace(
        guess,
        ttft_floor_s=max(0.0, short.ttft_s - short.input_tokens * per_token_s),
        prefill_s_per_token=per_token_s,
        itl_base_s=max(_MIN_SLOPE_S, itl_one_s - slope_s),
        itl_slope_s=slope_s,
        predicted=False,
        source=f"calibrated on this machine, {datetime.now(UTC).date().isoformat()}",
    )


async def calibrate_embeddings(backend: LlmBackend, model: str, guess: LlmCurve) -> LlmCurve:
    """Measure how long replica 0 takes for texts and fit a line: one short one, and many longer.

    As thin as `calibrate`: two points, no repetition.

    Args:
        backend: A started pool, idle.
        model: Name of the model.
        guess: Caps and context are taken over from it.

    Returns:
        The measured curve.

    Raises:
        PoolError: The replica failed.
    """
    texts = [_words(_SHORT_WORDS, f"text {n}") for n in range(_TEXTS)]
    # The first of each kind pays for preparing its shape.
    await _measure_texts(backend, model, texts[:1])
    await _measure_texts(backend, model, texts)
    one_tokens, one_s = await _measure_texts(backend, model, texts[:1])
    all_tokens, all_s = await _measure_texts(backend, model, texts)
    tokens = max(1, all_tokens - one_tokens)
    per_token_s = max(_MIN_PREFILL_S_PER_TOKEN, (all_s - one_s) / tokens)
    return msgspec.structs.replace(
        guess,
        ttft_floor_s=max(0.0, one_s - one_tokens * per_token_s),
        prefill_s_per_token=per_token_s,
        predicted=False,
        source=f"calibrated on this machine, {datetime.now(UTC).date().isoformat()}",
    )


async def _measure_texts(backend: LlmBackend, model: str, texts: list[str]) -> tuple[int, float]:
    start_s = time.perf_counter()
    vectors = await backend.embed(texts, model, 0)
    return vectors.input_tokens, time.perf_counter() - start_s


def _words(count: int, salt: str) -> str:
    """A prompt that no cache has seen."""
    return f"{salt}: " + " ".join(f"item {number * 7919 % 997}" for number in range(count // 2))


async def _measure(backend: LlmBackend, model: str, prompt: str, output_tokens: int) -> _Timing:
    request = LlmRequest(
        kind="completion",
        model=model,
        prompt=prompt,
        max_output_tokens=output_tokens,
        temperature=0.0,
    )
    start_s = time.perf_counter()
    first_s: float | None = None
    counted = (0, 0)
    async with aclosing(backend.complete(request, 0)) as chunks:
        async for chunk in chunks:
            if first_s is None:
                first_s = time.perf_counter() - start_s
            if chunk.usage is not None:
                counted = (chunk.usage.input_tokens, chunk.usage.output_tokens)
    e2e_s = time.perf_counter() - start_s
    return _Timing(counted[0], counted[1], e2e_s if first_s is None else first_s, e2e_s)


def _itl_s(timing: _Timing) -> float:
    return (timing.e2e_s - timing.ttft_s) / max(1, timing.output_tokens - 1)
