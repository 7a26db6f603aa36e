"""/v1/rerank: handed on where the pool has it, else by similarity, which is said."""

import asyncio
import json
from typing import Any

import pytest
from tests.gateway.conftest import Start
from tests.gateway.raw_upstream import Call, raw_upstream, whole

from steelyard.domain.events import AttemptFinished
from steelyard.gateway.rerank import RankedText, RerankRequest, ranking
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.endpoint_terms import EndpointTraits
from steelyard.pools.scripted import ScriptedLlmPool

ASK: dict[str, Any] = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]}


async def test_an_endpoints_ranking_passes_byte_for_byte(start: Start) -> None:
    answer = (
        b'{ "id":"r", "results":[{"index":1,"relevance_score":0.90}],"usage":{"total_tokens":7}}'
    )

    async def script(call: Call) -> None:
        await call.send(whole(answer))

    async with raw_upstream(script) as (upstream, url):
        pool = OpenAiEndpointPool([url], ["m"], traits=EndpointTraits(apis=("rerank",)))
        await pool.start()
        async with start(pool) as rig:
            sent = json.dumps({**ASK, "max_chunks_per_doc": 3}).encode()
            async with rig.http.post("/v1/rerank", data=sent) as response:
                assert (response.status, await response.read()) == (200, answer)
                assert response.headers["steelyard-pool"] == "lab"
            [finished] = rig.of_kind(AttemptFinished)
        await pool.close()
    assert upstream.calls[0].body == sent
    assert upstream.calls[0].head.startswith(b"POST /v1/rerank ")
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (7, 0)


async def test_a_ranking_that_is_of_no_use_any_more_is_given_up(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.left.wait()

    headers = {"Steelyard-Deadline": "1", "Steelyard-On-Miss": "refuse"}
    async with raw_upstream(script) as (upstream, url):
        pool = OpenAiEndpointPool([url], ["m"], traits=EndpointTraits(apis=("rerank",)))
        await pool.start()
        async with asyncio.timeout(20.0), start(pool) as rig:
            async with rig.http.post("/v1/rerank", json=ASK, headers=headers) as response:
                assert response.status in {503, 504}
            await upstream.calls[0].left.wait()
        await pool.close()


async def test_an_endpoint_without_the_path_is_refused_in_one_line(start: Start) -> None:
    async def script(call: Call) -> None:
        raise AssertionError(call.head)

    async with raw_upstream(script) as (_, url):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        async with start(pool) as rig, rig.http.post("/v1/rerank", json=ASK) as response:
            told = (await response.json())["error"]
            assert (response.status, told["code"]) == (400, "model_not_supported")
        await pool.close()


async def test_a_backend_that_took_a_pools_place_is_the_one_that_is_asked_what_it_can(
    start: Start,
) -> None:
    async with start(ScriptedLlmPool(model="m")) as rig:
        async with rig.http.post("/v1/rerank", json=ASK) as response:
            assert response.status == 400
        spec = rig.dispatcher.state.spec("lab")
        assert spec is not None
        changed = ScriptedLlmPool(model="m", embedding_dimensions=3)
        rig.dispatcher.put_pool(spec, changed)
        assert rig.dispatcher.backends("m") == [changed]
        async with rig.http.post("/v1/rerank", json=ASK) as response:
            assert response.status == 200


async def test_a_model_of_embeddings_ranks_by_similarity_and_says_so(start: Start) -> None:
    async with start(ScriptedLlmPool(model="m", embedding_dimensions=3)) as rig:
        async with rig.http.post("/v1/rerank", json=ASK) as response:
            told = await response.json()
        assert response.status == 200
        assert "cosine" in told["steelyard"]["scores"]
        assert [one["index"] for one in told["results"]] == [0, 1]
        [finished] = rig.of_kind(AttemptFinished)
        assert told["steelyard"]["cost_usd"] == finished.cost_usd


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"documents": []}, 400),
        ({"top_n": 0}, 400),
        ({"query": None}, 400),
        ({"documents": [{"image": "x"}]}, 400),
        ({"model": "other"}, 404),
    ],
)
async def test_a_wrong_field_is_named(start: Start, change: dict[str, Any], status: int) -> None:
    async with start(ScriptedLlmPool(model="m", embedding_dimensions=3)) as rig:
        async with rig.http.post("/v1/rerank", json={**ASK, **change}) as response:
            told = (await response.json())["error"]
        assert response.status == status
        assert told["param"].startswith(next(iter(change)))


async def test_a_model_of_texts_ranks_nothing(start: Start) -> None:
    async with (
        start(ScriptedLlmPool(model="m")) as rig,
        rig.http.post("/v1/rerank", json=ASK) as response,
    ):
        assert response.status == 400


def test_documents_come_by_falling_cosine_and_equal_ones_in_order() -> None:
    asked = RerankRequest(
        model="m", query="q", documents=["far", RankedText("near"), "nought", "near too"], top_n=3
    )
    told = ranking(asked, [(1.0, 0.0), (0.0, 1.0), (2.0, 0.0), (0.0, 0.0), (5.0, 0.0)])
    found = [(one["index"], one["relevance_score"]) for one in told["results"]]
    assert found == [(1, 1.0), (3, 1.0), (0, 0.0)]
    assert told["results"][0]["document"] == {"text": "near"}
