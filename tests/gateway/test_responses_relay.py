"""/v1/responses of a pool that has it: handed on byte for byte, read along for the books."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from tests.gateway.conftest import Rig, Start
from tests.gateway.raw_upstream import (
    STREAM,
    Call,
    RawUpstream,
    Script,
    chunk,
    raw_upstream,
    whole,
)

from steelyard.domain.events import AttemptFinished
from steelyard.pools.aliased import aliased
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.endpoint_terms import EndpointTraits

ANSWER: dict[str, Any] = {
    "id": "resp_up",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "vendor": 1.5,
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    },
}


def event(kind: str, **fields: Any) -> bytes:
    told = json.dumps({"type": kind, **fields}, indent=None).encode()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), told)


BEGUN = event("response.created", response={**ANSWER, "status": "in_progress", "usage": None})
DELTA = event("response.output_text.delta", delta="Hi", item_id="msg_1")
LAST = event("response.completed", response=ANSWER, sequence_number=9)


@asynccontextmanager
async def rig_of(
    start: Start, script: Script, alias: str = ""
) -> AsyncGenerator[tuple[Rig, RawUpstream]]:
    async with raw_upstream(script) as (upstream, url):
        traits = EndpointTraits(apis=("responses",))
        pool = OpenAiEndpointPool([url + "/vendor/base"], ["m"], traits=traits)
        await pool.start()
        try:
            # The rig serves the first model of the pool alone.
            named = aliased(pool, {alias: "m"} if alias else {})
            async with start(named, model=alias or "m") as rig:
                yield rig, upstream
        finally:
            await pool.close()


async def _streaming(call: Call) -> None:
    await call.send(STREAM + chunk(BEGUN[:9]) + chunk(BEGUN[9:] + DELTA) + chunk(LAST))
    await call.send(b"0\r\n\r\n")


async def test_a_whole_answer_and_its_request_pass_byte_for_byte(start: Start) -> None:
    answer = json.dumps(ANSWER, indent=1).encode()

    async def script(call: Call) -> None:
        await call.send(whole(answer))

    # A tool that only its vendor can run is no concern of ours here.
    sent = b'{ "model":"m", "input":"Hi", "tools":[{"type":"web_search"}], "x":1.10}'
    async with rig_of(start, script) as (rig, upstream):
        async with rig.http.post("/v1/responses", data=sent) as response:
            assert await response.read() == answer
            cost_usd = float(response.headers["steelyard-cost-usd"])
        [finished] = rig.of_kind(AttemptFinished)
    assert upstream.calls[0].body == sent
    assert upstream.calls[0].head.startswith(b"POST /v1/vendor/base/responses ")
    assert finished.cost_usd == cost_usd > 0.0
    usage = finished.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (5, 4, 2)


async def test_events_pass_byte_for_byte_and_the_last_one_gets_the_cost(start: Start) -> None:
    async with rig_of(start, _streaming) as (rig, _):
        body = {"model": "m", "input": "Hi", "stream": True}
        async with rig.http.post("/v1/responses", json=body) as response:
            received = await response.read()
        [finished] = rig.of_kind(AttemptFinished)
    passed, cost = received.split(b',"steelyard":')
    assert passed == BEGUN + DELTA + LAST.rstrip()[:-1]
    assert cost.endswith(b"}}\n\n")
    assert json.loads(cost[:-3]) == {"cost_usd": finished.cost_usd}
    assert finished.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (event("response.completed"), "without a response"),
        (b"data: [1]\n\n", "sent no answer"),
        (event("response.completed", response={"usage": {"input_tokens": -1}}), "usage"),
    ],
)
async def test_a_last_event_of_another_shape_is_an_error(
    start: Start, last: bytes, told: str
) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(BEGUN + last) + b"0\r\n\r\n")

    async with rig_of(start, script) as (rig, _):
        with pytest.raises(openai.APIError, match=told):
            await _read(rig)


async def test_an_answer_without_id_and_output_is_handed_on_and_not_kept(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(b'{"object":"response","status":"completed","usage":null}'))

    async with rig_of(start, script) as (rig, _):
        async with rig.http.post("/v1/responses", json={"model": "m", "input": "Hi"}) as got:
            assert (got.status, await got.json()) == (
                200,
                {"object": "response", "status": "completed", "usage": None},
            )
        [finished] = rig.of_kind(AttemptFinished)
        assert finished.usage.counting == "estimated"


async def test_a_conversation_goes_on_wherever_it_is_placed(start: Start) -> None:
    async with rig_of(start, _streaming) as (rig, upstream):
        create = rig.openai.responses.create
        stream = await create(model="m", input="Hi", stream=True)
        assert [one.type async for one in stream][-1] == "response.completed"
        stream = await create(model="m", input="On", previous_response_id="resp_up", stream=True)
        assert [one async for one in stream]
        # One that is not kept here may be kept by the server.
        stream = await create(model="m", input="On", previous_response_id="resp_x", stream=True)
        assert [one async for one in stream]
    known, unknown = (json.loads(call.body) for call in upstream.calls[1:])
    assert "previous_response_id" not in known
    assert [item.get("content") for item in known["input"]] == [
        "Hi",
        ANSWER["output"][0]["content"],
        "On",
    ]
    assert unknown["previous_response_id"] == "resp_x"


@pytest.mark.parametrize(
    "failure",
    [
        event("error", message="no room", code="server_error"),
        event("response.failed", response={"error": {"code": "x", "message": "no room"}}),
    ],
)
async def test_an_upstream_that_fails_in_mid_stream_is_told(start: Start, failure: bytes) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(BEGUN) + chunk(failure) + b"0\r\n\r\n")

    async with rig_of(start, script) as (rig, _):
        with pytest.raises(openai.APIError, match="no room"):
            await _read(rig)
        [finished] = rig.of_kind(AttemptFinished)
        assert finished.outcome == "failed"


async def test_an_upstream_that_ends_early_is_an_error(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(BEGUN + DELTA) + b"0\r\n\r\n")

    async with rig_of(start, script) as (rig, _):
        with pytest.raises(openai.APIError, match="ended its answer"):
            await _read(rig)


async def _read(rig: Rig) -> None:
    stream = await rig.openai.responses.create(model="m", input="Hi", stream=True)
    assert [one async for one in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_upstream(start: Start, stream: bool) -> None:
    async def script(call: Call) -> None:
        if stream:
            await call.send(STREAM + chunk(BEGUN))
        await call.left.wait()

    async with rig_of(start, script) as (rig, upstream):
        body = {"model": "m", "input": "Hi", "stream": stream}
        asking = asyncio.create_task(_ask(rig, body))
        async with asyncio.timeout(5.0):
            await upstream.came.wait()
            asking.cancel()
            await upstream.calls[0].left.wait()
        await asyncio.gather(asking, return_exceptions=True)
        await rig.wait_for(AttemptFinished)
        [finished] = rig.of_kind(AttemptFinished)
        assert finished.outcome == "cancelled"


async def _ask(rig: Rig, body: dict[str, Any]) -> None:
    async with rig.http.post("/v1/responses", json=body) as response:
        await response.read()


async def test_an_alias_is_put_back_before_the_pool_is_asked(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(whole(json.dumps(ANSWER).encode()))

    async with rig_of(start, script, alias="fast") as (rig, upstream):
        assert [model.id async for model in rig.openai.models.list()] == ["fast"]
        answer = await rig.openai.responses.create(model="fast", input="Hi", extra_body={"x": 1})
        assert answer.output_text == "Hi"
    assert json.loads(upstream.calls[0].body) == {"model": "m", "input": "Hi", "x": 1}


async def test_what_the_server_behind_alone_knows_is_never_left_out(start: Start) -> None:
    async with rig_of(start, _streaming) as (rig, upstream):
        create = rig.openai.responses.create
        for before in ("resp_of_the_server", "resp_up"):
            stream = await create(model="m", input="On", previous_response_id=before, stream=True)
            assert [one async for one in stream]
    # The second one is kept here, but what came before it is not.
    asked = [json.loads(call.body) for call in upstream.calls]
    assert [one["previous_response_id"] for one in asked] == ["resp_of_the_server", "resp_up"]
    assert [one["input"] for one in asked] == ["On", "On"]


async def test_an_answer_that_would_come_later_is_refused(start: Start) -> None:
    async with rig_of(start, _streaming) as (rig, upstream):
        with pytest.raises(openai.BadRequestError, match="background"):
            await rig.openai.responses.create(model="m", input="Hi", background=True)
    assert not upstream.calls


async def test_a_stream_that_breaks_off_is_not_begun_again(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(BEGUN + DELTA) + b"0\r\n\r\n")

    async with rig_of(start, script) as (rig, _):
        body = {"model": "m", "input": "Hi", "stream": True}
        async with rig.http.post("/v1/responses", json=body) as response:
            received = await response.read()
    assert received.startswith(BEGUN + DELTA + b"event: error\n")
    assert received.count(b"response.created") == BEGUN.count(b"response.created")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_the_other_kind_is_an_error_and_no_empty_answer(
    start: Start, stream: bool
) -> None:
    async def script(call: Call) -> None:
        streamed = STREAM + chunk(BEGUN + DELTA + LAST) + b"0\r\n\r\n"
        await call.send(whole(json.dumps(ANSWER).encode()) if stream else streamed)

    async with rig_of(start, script) as (rig, _):
        body = {"model": "m", "input": "Hi", "stream": stream}
        async with rig.http.post("/v1/responses", json=body) as response:
            assert response.status == 502
            assert "The upstream sent" in (await response.json())["error"]["message"]


async def test_a_numbered_step_is_asked_as_a_chat_and_answered_from_the_log(start: Start) -> None:
    async def script(call: Call) -> None:
        told = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
        events = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(told).encode()
        await call.send(STREAM + chunk(events) + b"0\r\n\r\n")

    headers = {"Steelyard-Task": "t", "Idempotency-Key": "t/0"}
    async with rig_of(start, script) as (rig, upstream):
        for _ in range(2):
            body = {"model": "m", "input": "Hi"}
            async with rig.http.post("/v1/responses", json=body, headers=headers) as response:
                told = await response.json()
                assert response.status == 200, told
                assert told["output"][0]["content"][0]["text"] == "Hi"
    [call] = upstream.calls
    assert call.head.startswith(b"POST /v1/vendor/base/chat/completions ")
    assert json.loads(call.body)["messages"] == [{"role": "user", "content": "Hi"}]
