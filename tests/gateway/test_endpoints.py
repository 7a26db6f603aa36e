"""Completions, embeddings and models through the unmodified openai client."""

import asyncio

import openai
import pytest
from tests.gateway.conftest import Start

from steelyard.domain.events import TaskFinished, TaskSubmitted
from steelyard.errors import PoolOverloadedError
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool


async def test_a_completion_whole_and_streamed(start: Start) -> None:
    async with start() as rig:
        whole = await rig.openai.completions.create(
            model="scripted", prompt="Once", n=2, logprobs=1
        )
        assert [choice.text for choice in whole.choices] == ["Hello world"] * 2
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 4
        logprobs = whole.choices[1].logprobs
        assert logprobs is not None
        assert logprobs.tokens == ["Hello", " world"]
        stream = await rig.openai.completions.create(
            model="scripted", prompt="Once", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].text for c in chunks if c.choices) == "Hello world"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.prompt_tokens == 7


async def test_an_empty_answer_is_an_answer(start: Start) -> None:
    async with start(ScriptedLlmPool((ScriptedAnswer(pieces=()),))) as rig:
        whole = await rig.openai.completions.create(model="scripted", prompt="Once")
        assert whole.choices[0].text == ""
        stream = await rig.openai.completions.create(model="scripted", prompt="x", stream=True)
        assert [chunk.choices[0].finish_reason async for chunk in stream] == ["stop"]


async def test_embeddings_come_as_floats_and_as_base64(start: Start) -> None:
    async with start(ScriptedLlmPool(embedding_dimensions=3)) as rig:
        texts = ["a", "abc"]
        by_default = await rig.openai.embeddings.create(model="scripted", input=texts)
        floats = await rig.openai.embeddings.create(
            model="scripted", input=texts, encoding_format="float"
        )
        for answer in (by_default, floats):
            assert [one.embedding for one in answer.data] == [[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]
            assert answer.usage.prompt_tokens == 4
        assert [event.status for event in rig.of_kind(TaskFinished)] == ["succeeded"] * 2


async def test_a_pool_without_embeddings_is_a_clear_400(start: Start) -> None:
    async with start() as rig:
        with pytest.raises(openai.BadRequestError, match="no embeddings"):
            await rig.openai.embeddings.create(model="scripted", input="x")


async def test_models_are_listed_and_told(start: Start) -> None:
    async with start() as rig:
        assert [model.id async for model in rig.openai.models.list()] == ["scripted"]
        model = await rig.openai.models.retrieve("scripted")
        assert (model.id, (model.model_extra or {})["max_model_len"]) == ("scripted", 8192)
        with pytest.raises(openai.NotFoundError):
            await rig.openai.models.retrieve("nope")


async def test_a_model_with_a_slash_in_its_name_is_told(start: Start) -> None:
    async with start(model="org/model-1") as rig:
        # The client writes it as %2F.
        assert (await rig.openai.models.retrieve("org/model-1")).id == "org/model-1"
        async with rig.http.get("/v1/models/org/model-1") as response:
            assert response.status == 200


async def test_an_unknown_model_is_404_and_opens_no_task(start: Start) -> None:
    async with start() as rig:
        with pytest.raises(openai.NotFoundError) as caught:
            await rig.openai.completions.create(model="gpt-9", prompt="x")
        assert caught.value.code == "model_not_found"
        assert "scripted" in str(caught.value)
        assert rig.of_kind(TaskSubmitted) == []


async def test_a_prompt_longer_than_every_context_is_400(start: Start) -> None:
    async with start() as rig:
        with pytest.raises(openai.BadRequestError) as caught:
            await rig.openai.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "word " * 20_000}]
            )
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == "messages"


async def test_an_estimate_just_over_the_context_is_left_to_the_pool(start: Start) -> None:
    async with start() as rig:
        answer = await rig.openai.completions.create(model="scripted", prompt="x" * 4 * 9000)
        assert answer.choices[0].text == "Hello world"


async def test_a_gateway_in_front_of_a_gateway_gives_the_same_answers(start: Start) -> None:
    overload = ScriptedAnswer(error=PoolOverloadedError("full", retry_after_s=0.1))
    script = (ScriptedAnswer(), ScriptedAnswer(), overload)
    async with start(ScriptedLlmPool(script)) as upstream:
        pool = OpenAiEndpointPool([upstream.server.base_url])
        await pool.start()
        async with start(pool) as rig:
            answer = await rig.openai.chat.completions.create(
                model="scripted",
                messages=[{"role": "user", "content": "Hi"}],
                n=2,
                logprobs=True,
            )
            assert [choice.message.content for choice in answer.choices] == ["Hello world"] * 2
            for choice in answer.choices:
                assert choice.logprobs is not None
                assert [one.logprob for one in choice.logprobs.content or []] == [-0.5, -0.5]
            assert answer.usage is not None
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
            stream = await rig.openai.completions.create(model="scripted", prompt="x", stream=True)
            assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello world"
            with pytest.raises(openai.RateLimitError, match="full"):
                await rig.openai.completions.create(model="scripted", prompt="x")
        await pool.close()


async def test_leaving_frees_the_place_behind_two_gateways(start: Start) -> None:
    scripted = ScriptedLlmPool((ScriptedAnswer(before_first=asyncio.Event()),))
    async with start(scripted) as upstream:
        pool = OpenAiEndpointPool([upstream.server.base_url])
        await pool.start()
        async with start(pool) as rig:
            asking = asyncio.create_task(
                rig.openai.completions.create(model="scripted", prompt="x")
            )
            await scripted.wait_in_flight(1)
            asking.cancel()
            async with asyncio.timeout(5.0):
                await scripted.wait_in_flight(0)
        await pool.close()
