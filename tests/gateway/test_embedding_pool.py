"""Embeddings the whole way: unmodified openai client, gateway, dispatcher, child, real model."""

import base64
import math
import struct
from collections.abc import AsyncGenerator

import aiohttp
import openai
import pytest
import pytest_asyncio
from tests.gateway.conftest import Rig, Start

from steelyard.domain.events import AttemptFinished, StepPlaced
from steelyard.pools.engine.embedding_pool import EmbeddingPool

MODEL = "all-minilm-l6-v2"
TEXTS = ["Paris is the capital of France.", "What is the capital of France?", "cheap Arm cores"]

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncGenerator[EmbeddingPool, None]:
    pool = EmbeddingPool()
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def _cosine(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


async def test_floats_and_base64_are_the_same_vectors(start: Start, pool: EmbeddingPool) -> None:
    async with start(pool) as rig:
        # Without an encoding the client asks for base64 and decodes it itself.
        packed = await rig.openai.embeddings.create(model=MODEL, input=TEXTS)
        plain = await rig.openai.embeddings.create(
            model=MODEL, input=TEXTS, encoding_format="float"
        )
    assert [one.index for one in plain.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == 384
        assert one.embedding == pytest.approx(other.embedding, abs=1e-7)
    capital, question, cores = (one.embedding for one in plain.data)
    assert _cosine(capital, question) > _cosine(capital, cores) + 0.3


async def test_usage_is_counted_and_paid_for(start: Start, pool: EmbeddingPool) -> None:
    async with start(pool) as rig:
        answer = await rig.openai.embeddings.create(model=MODEL, input="hello")
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
        [placed] = rig.of_kind(StepPlaced)
        [finished] = rig.of_kind(AttemptFinished)
    assert placed.decision.pool == "lab"
    assert finished.usage.input_tokens == 3
    assert finished.usage.counting == "measured"
    assert finished.cost_usd > 0.0


async def test_base64_on_the_wire_is_little_endian_floats(
    start: Start, pool: EmbeddingPool
) -> None:
    async with start(pool) as rig:
        body = {"model": MODEL, "input": "hello", "encoding_format": "base64"}
        async with rig.http.post("/v1/embeddings", json=body) as response:
            answer = await response.json()
    values = struct.unpack("<384f", base64.b64decode(answer["data"][0]["embedding"]))
    assert _cosine(list(values), list(values)) == pytest.approx(1.0, abs=1e-5)


async def test_what_it_cannot_do_is_400(start: Start, pool: EmbeddingPool) -> None:
    async with start(pool) as rig:
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            await rig.openai.embeddings.create(model=MODEL, input="hello", dimensions=64)
        with pytest.raises(openai.BadRequestError, match="takes 256"):
            await rig.openai.embeddings.create(model=MODEL, input="word " * 300)
        with pytest.raises(openai.BadRequestError, match="generates no text"):
            await rig.openai.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hello"}]
            )


async def test_a_journalled_step_is_answered_from_the_log(
    start: Start, pool: EmbeddingPool
) -> None:
    async with start(pool) as rig:
        headers = {
            "Steelyard-Task": "t",
            "Idempotency-Key": "t/0",
        }
        costs = [await _asked(rig, headers) for _ in range(2)]
        assert costs[0] == costs[1]
        assert len(rig.of_kind(AttemptFinished)) == 1


async def _asked(rig: Rig, headers: dict[str, str]) -> tuple[str, bytes]:
    body = {"model": MODEL, "input": "hello"}
    response: aiohttp.ClientResponse
    async with rig.http.post("/v1/embeddings", json=body, headers=headers) as response:
        assert response.status == 200
        return response.headers["Steelyard-Cost-Usd"], await response.read()
