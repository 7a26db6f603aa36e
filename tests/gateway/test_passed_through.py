"""What endpoints alone may know is handed to them untouched, and refused by the engine here."""

import json
from typing import Any

import openai
import pytest
from tests.gateway.conftest import Start
from tests.gateway.raw_upstream import WHOLE, Call, whole
from tests.gateway.test_relay import ASK, post, rig_of

from steelyard.domain.events import AttemptFinished
from steelyard.pools.scripted import ScriptedLlmPool

VECTORS = b'{"data":[{"index":0,"embedding":[0.10,-1]}],"vendor":1,"usage":{"prompt_tokens":3}}'


async def test_embeddings_of_an_endpoint_pass_byte_for_byte(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(VECTORS))

    sent = b'{"input":[[1, 2,3]],"model":"m","dimensions":2,"input_type":"query"}'
    async with rig_of(start, script) as (rig, upstream):
        async with rig.http.post("/v1/embeddings", data=sent) as response:
            assert (response.status, await response.read()) == (200, VECTORS)
            cost_usd = float(response.headers["steelyard-cost-usd"])
        [ended] = rig.of_kind(AttemptFinished)
    assert upstream.calls[0].body == sent
    assert upstream.calls[0].head.startswith(b"POST /v1/embeddings ")
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (3, 0)
    assert cost_usd == ended.cost_usd > 0.0


@pytest.mark.parametrize(
    ("body", "code"), [(b"{}", 502), (b'{"data":3}', 502), (b'{"error":{"code":400}}', 400)]
)
async def test_what_are_no_vectors_is_an_error(start: Start, body: bytes, code: int) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(body))

    async with rig_of(start, script) as (rig, _):
        asked = {"model": "m", "input": "x"}
        async with rig.http.post("/v1/embeddings", json=asked) as response:
            assert response.status == code


async def test_token_ids_are_refused_where_they_are_not_read(start: Start) -> None:
    async with start(ScriptedLlmPool(embedding_dimensions=3)) as rig:
        with pytest.raises(openai.BadRequestError, match="token ids"):
            await rig.openai.embeddings.create(model="scripted", input=[1, 2])


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "sql"}}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "auto"}, "tools[0].type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {}},
            },
            "tool_choice.type",
        ),
    ],
)
async def test_tools_and_formats_that_a_vendor_knows_are_its_matter(
    start: Start, more: dict[str, Any], param: str
) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(WHOLE).encode()))

    sent = json.dumps({**ASK, **more}).encode()
    async with rig_of(start, script) as (rig, upstream):
        status, _, _ = await post(rig, sent)
    assert (status, upstream.calls[0].body) == (200, sent)
    async with start() as rig:
        status, told, _ = await post(rig, {**ASK, **more, "model": "scripted"})
    assert (status, json.loads(told)["error"]["param"]) == (400, param)


async def test_a_function_without_a_definition_is_refused(start: Start) -> None:
    async with start() as rig:
        asked = {**ASK, "model": "scripted", "tools": [{"type": "function"}]}
        status, told, _ = await post(rig, asked)
    assert (status, json.loads(told)["error"]["param"]) == (400, "tools[0].function")


async def test_tools_whose_calls_the_log_cannot_keep_are_refused_in_numbered_steps(
    start: Start,
) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(WHOLE).encode()))

    numbered = {"Steelyard-Task": "t1", "Idempotency-Key": "t1/0"}
    asked = {
        **ASK,
        "tools": [{"type": "custom", "custom": {"name": "sql"}}],
        "response_format": {"type": "structural_tag"},
    }
    async with rig_of(start, script) as (rig, upstream):
        status, told, _ = await post(rig, asked, numbered)
    assert (status, json.loads(told)["error"]["param"]) == (400, "tools[0].type")
    assert not upstream.calls
