"""How long does each library, in each precision, take for a small workload on this host?"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec

from steelyard.errors import SteelyardError
from steelyard.pools.backend import LlmRequest
from steelyard.pools.engine.adapter import EngineName, EngineSettings, Precision
from steelyard.pools.engine.pool import EmbeddedEnginePool

# An 8-bit copy, which is made at the first start, takes some ten seconds of it.
COMPARISON_LIMIT_S = 90.0
_ROUNDS = 2
_PROMPT_WORDS = 50
_STREAMS = 8
_OUTPUT_TOKENS = 16


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A library, and the numbers it computes in.

    >>> str(Variant(engine="openvino", precision="f32")), str(Variant(engine="llamacpp"))
    ('openvino in f32', 'llamacpp')
    """

    engine: EngineName
    precision: Precision = "native"

    def __str__(self) -> str:
        """Its name for people."""
        return self.engine if self.precision == "native" else f"{self.engine} in {self.precision}"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        wall_s: Of each variant that ran, by its name: its best round.
        failed: Why the others did not.
    """

    wall_s: dict[str, float]
    failed: dict[str, str]


async def compare(
    variants: Sequence[Variant],
    model_path: Path,
    cache: Path,
    limit_s: float = COMPARISON_LIMIT_S,
) -> Comparison:
    """How long do the variants take for agents in small: a prompt they share, then eight answers?

    Of about two prompt tokens that are computed per token of output. One child of one thread each;
    the best of interleaved rounds. Thin: two rounds, and one workload.

    Args:
        variants: What is compared.
        model_path: The model's file.
        cache: Folder in which copies of the model are kept.
        limit_s: A variant that has not answered by then counts as failed.

    Returns:
        The times, and the failures.
    """
    clock = asyncio.get_running_loop()
    until_s = clock.time() + limit_s
    pools = {variant: _pool(variant, model_path, cache) for variant in variants}
    wall_s: dict[str, float] = {}
    failed: dict[str, str] = {}
    try:
        for number in range(_ROUNDS):
            for variant, pool in pools.items():
                name = str(variant)
                if name in failed or (name in wall_s and clock.time() >= until_s):
                    continue
                try:
                    async with asyncio.timeout_at(until_s):
                        if number == 0:
                            await pool.start()
                        took_s = await _workload(pool, number)
                except TimeoutError:
                    failed.setdefault(name, f"no answer within {limit_s:g} s of measuring")
                except (SteelyardError, OSError) as error:
                    # What broke once is not taken, however fast it had been before.
                    failed[name] = str(error)
                    wall_s.pop(name, None)
                else:
                    wall_s[name] = min(took_s, wall_s.get(name, took_s))
    finally:
        await asyncio.gather(*(pool.close() for pool in pools.values()))
    return Comparison(wall_s=wall_s, failed=failed)


def _pool(variant: Variant, model_path: Path, cache: Path) -> EmbeddedEnginePool:
    settings = EngineSettings(
        adapter=variant.engine,
        precision=variant.precision,
        cache_folder=str(cache),
        max_streams=_STREAMS,
    )
    return EmbeddedEnginePool(model_path=model_path, settings=settings)


async def _workload(pool: EmbeddedEnginePool, number: int) -> float:
    prefix = f"round {number}: " + " ".join(str(word * 7919 % 997) for word in range(_PROMPT_WORDS))

    async def ask(text: str) -> None:
        request = LlmRequest(
            kind="completion",
            model=pool.models()[0],
            prompt=text,
            max_output_tokens=_OUTPUT_TOKENS,
            temperature=0.0,
        )
        async with aclosing(pool.complete(request, 0)) as chunks:
            async for _ in chunks:
                pass

    start_s = time.perf_counter()
    await asyncio.gather(*(ask(f"{prefix} {stream}") for stream in range(_STREAMS)))
    return time.perf_counter() - start_s
