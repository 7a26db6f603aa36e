"""Requests without a name are one event, answered in callbacks; whatever goes wrong is told."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import Rig, Start, pool_spec
from tests.gateway.raw_upstream import (
    STREAM,
    WHOLE,
    Call,
    RawUpstream,
    Script,
    chunk,
    piece,
    raw_upstream,
    usage_event,
    whole,
)

from steelyard.domain.events import (
    AttemptFinished,
    Event,
    PoolAdded,
    RequestServed,
    StepPlaced,
    TaskFinished,
    TaskSubmitted,
)
from steelyard.fleet.state import FleetState
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.placement.baselines import policy_named
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay
from steelyard.pools.aliased import aliased
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.explanation import explained
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import MemoryEventLog
from steelyard.store.sqlite_log import SqliteEventLog, read_events

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAMED: dict[str, Any] = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
ANSWER = whole(json.dumps(WHOLE).encode())
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def answer(call: Call) -> None:
    await call.send(ANSWER)


@asynccontextmanager
async def rig_of(
    start: Start, script: Script, alias: str = ""
) -> AsyncGenerator[tuple[Rig, RawUpstream, list[Event]]]:
    """A gateway whose pool has a free connection, so that the next request goes the short way."""
    async with raw_upstream(answer) as (upstream, url):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        try:
            named = aliased(pool, {alias: "m"} if alias else {})
            async with start(named, model=alias or "m") as rig:
                heard: list[Event] = []
                rig.dispatcher.subscribe(heard.append)
                assert (await post(rig, {**ASK, "model": alias or "m"}))[0] == 200
                heard.clear()
                upstream.script = script
                yield rig, upstream, heard
        finally:
            await pool.close()


async def post(
    rig: Rig, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    data = json.dumps(body).encode()
    async with rig.http.post("/v1/chat/completions", data=data, headers=headers) as response:
        return response.status, await response.read(), response.headers


async def test_a_request_without_a_name_is_one_event_and_is_answered_as_ever(start: Start) -> None:
    async with rig_of(start, answer) as (rig, _, heard):
        status, body, headers = await post(rig, ASK)
        assert (status, json.loads(body)) == (200, WHOLE)
        [served] = heard
        assert isinstance(served, RequestServed)
        assert headers["steelyard-task"] == served.task_id
        assert float(headers["steelyard-cost-usd"]) == served.cost_usd > 0.0
        assert (served.usage.input_tokens, served.usage.output_tokens) == (5, 2)
        assert rig.dispatcher.under_way == {"lab": 0}
        # The log's reader sees what it always saw.
        kinds = [type(event) for event in rig.events[-5:]]
        assert kinds[0] is TaskSubmitted
        assert kinds[-1] is TaskFinished


async def test_a_pool_with_aliases_is_asked_the_short_way_too(start: Start) -> None:
    async with rig_of(start, answer, alias="fast") as (rig, upstream, heard):
        status, body, _ = await post(rig, {**ASK, "model": "fast"})
        assert (status, json.loads(body)) == (200, WHOLE)
        assert [type(event) for event in heard] == [RequestServed]
    assert json.loads(upstream.calls[-1].body) == ASK


@pytest.mark.parametrize(
    "headers", [{"Steelyard-Task": "t"}, {"Steelyard-Deadline": "30"}, {"Steelyard-Agent": "a"}]
)
async def test_a_request_that_says_more_keeps_its_own_events(
    headers: dict[str, str], start: Start
) -> None:
    async with rig_of(start, answer) as (rig, _, heard):
        assert (await post(rig, ASK, headers))[0] == 200
        assert not any(isinstance(event, RequestServed) for event in heard)
        assert any(isinstance(event, StepPlaced) for event in heard)


async def test_a_stream_without_a_name_is_one_event_and_ends_with_its_cost(start: Start) -> None:
    async def script(call: Call) -> None:
        await call.send(STREAM + chunk(piece("a")) + chunk(piece("b", "stop")))
        await call.send(chunk(usage_event()) + END)

    async with rig_of(start, script) as (rig, _, heard):
        status, body, _ = await post(rig, STREAMED)
        assert status == 200
        events = [part.removeprefix(b"data: ") for part in body.strip().split(b"\n\n")]
        assert events[-1] == b"[DONE]"
        [served] = heard
        assert isinstance(served, RequestServed)
        assert json.loads(events[-2])["steelyard"]["cost_usd"] == served.cost_usd
        assert served.usage.start_to_first_token_s is not None


async def test_an_upstream_that_fails_is_tried_again_and_both_attempts_are_recorded(
    start: Start,
) -> None:
    tried: list[Call] = []

    async def script(call: Call) -> None:
        tried.append(call)
        error = b'{"error":{"message":"busy","type":"server_error"}}'
        head = b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await call.send(head % len(error) + error if len(tried) == 1 else ANSWER)

    async with rig_of(start, script) as (rig, _, heard):
        status, _, headers = await post(rig, ASK)
        assert status == 200
        task_id = headers["steelyard-task"]
        ended = [event for event in heard if isinstance(event, AttemptFinished)]
        assert [(one.task_id, one.attempt, one.outcome) for one in ended] == [
            (task_id, 0, "failed"),
            (task_id, 1, "ok"),
        ]
        await rig.wait_for(TaskFinished, 2)
        assert rig.dispatcher.under_way == {"lab": 0}
        told = explained(rig.events, 0)
        assert [one.attempt for one in told][-2:] == [0, 1]


async def test_a_request_that_is_wrong_is_refused_once_with_the_upstreams_words(
    start: Start,
) -> None:
    async def script(call: Call) -> None:
        error = b'{"error":{"message":"no such voice","type":"invalid_request_error"}}'
        head = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await call.send(head % len(error) + error)

    async with rig_of(start, script) as (rig, upstream, heard):
        before = len(upstream.calls)
        status, body, _ = await post(rig, ASK)
        assert status == 400
        assert b"no such voice" in body
        assert len(upstream.calls) == before + 1
        await rig.wait_for(TaskFinished, 2)
        assert [event.status for event in heard if isinstance(event, TaskFinished)] == ["failed"]


async def test_a_client_that_leaves_frees_the_upstream_and_is_on_the_books(start: Start) -> None:
    came = asyncio.Event()

    async def script(call: Call) -> None:
        came.set()
        await call.left.wait()

    async with rig_of(start, script) as (rig, upstream, heard):
        asking = asyncio.create_task(post(rig, ASK))
        async with asyncio.timeout(5.0):
            await came.wait()
            # A pool that leaves waits for it.
            assert len(rig.dispatcher.state.open_attempts("lab")) == 1
            asking.cancel()
            await upstream.calls[-1].left.wait()
        assert not rig.dispatcher.state.open_attempts("lab")
        [served] = [event for event in heard if isinstance(event, RequestServed)]
        assert served.outcome == "cancelled"
        assert rig.dispatcher.under_way == {"lab": 0}


async def test_a_stop_ends_all_that_are_under_way_and_tells_each_client_why() -> None:
    came: list[Call] = []
    all_came, warm = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        came.append(call)
        if len(came) == 3:
            warm.set()
        if len(came) == 6:
            all_came.set()
        await (warm.wait() if len(came) <= 3 else call.left.wait())
        await call.send(ANSWER)

    log = MemoryEventLog()
    recorder = Recorder(WallClock(), log)
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec("lab", "m")))
    settings = GatewaySettings(port=0, limits=GatewayLimits(shutdown_timeout_s=1))
    async with raw_upstream(script) as (_, url), asyncio.timeout(20.0):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool}, {})
        async with serve(settings, dispatcher) as server:
            rig = Rig(server, dispatcher, log.events)
            # Leaves as many free connections: the next three go the short way.
            await asyncio.gather(*(post(rig, ASK) for _ in range(3)))
            heard: list[Event] = []
            dispatcher.subscribe(heard.append)
            asking = [asyncio.create_task(post(rig, ASK)) for _ in range(3)]
            await all_came.wait()
            assert dispatcher.under_way == {"lab": 3}
        told = await asyncio.gather(*asking)
        await rig.close()
        await pool.close()
    assert [status for status, _, _ in told] == [503] * 3
    assert all(b"the gateway is stopping" in body for _, body, _ in told)
    assert [type(event) for event in heard] == [RequestServed] * 3
    assert dispatcher.under_way == {"lab": 0}


async def test_after_a_pool_got_another_backend_requests_go_there(start: Start) -> None:
    async with rig_of(start, answer) as (rig, upstream, _), raw_upstream(answer) as (other, url):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        before = len(upstream.calls)
        spec = rig.dispatcher.state.spec("lab")
        assert spec is not None
        rig.dispatcher.put_pool(spec, pool)
        for _ in range(3):
            assert (await post(rig, ASK))[0] == 200
        # Its first call was the one that made a free connection.
        assert len(upstream.calls) == before
        assert len(other.calls) >= 1
        await pool.close()


async def test_another_policy_decides_from_the_next_request_on(start: Start) -> None:
    async with rig_of(start, answer) as (rig, _, heard):
        rig.dispatcher.change_policy(policy_named("round_robin"))
        assert (await post(rig, ASK))[0] == 200
        [decision] = [e.decision for e in heard if isinstance(e, RequestServed | StepPlaced)]
        assert decision.policy == "round_robin"


async def test_a_free_connection_that_had_ended_gets_one_more_try(start: Start) -> None:
    async with rig_of(start, answer) as (rig, upstream, heard):
        upstream.calls[-1].writer.transport.abort()
        status, _, _ = await post(rig, ASK)
        assert status == 200
        ended = [one.outcome for one in rig.of_kind(AttemptFinished)]
        assert ended == ["ok", "ok"]
        assert len(heard) > 0


async def test_what_the_log_holds_is_what_was_lived_through(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    live, gate = Ledger(), asyncio.Event()

    async def script(call: Call) -> None:
        if b"wait" in call.body:
            await gate.wait()
        await call.send(ANSWER)

    async with raw_upstream(script) as (_, url):
        pool = OpenAiEndpointPool([url], ["m"])
        await pool.start()
        with SqliteEventLog(path) as log:
            recorder = Recorder(WallClock(), log)
            recorder.subscribe(live.apply)
            for name in ("lab", "other"):
                recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec(name, "m")))
            dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool, "other": pool}, {})
            async with serve(GatewaySettings(port=0), dispatcher) as server:
                rig = Rig(server, dispatcher, [])
                slow = {**ASK, "messages": [{"role": "user", "content": "wait"}]}
                waiting = [asyncio.create_task(post(rig, slow)) for _ in range(5)]
                for _ in range(20):
                    assert (await post(rig, ASK))[0] == 200
                gate.set()
                assert {one[0] for one in await asyncio.gather(*waiting)} == {200}
                await rig.close()
        await pool.close()
    events = list(read_events(path))
    assert Ledger.of(events).tasks != []
    assert sorted(one.task_id for one in Ledger.of(events).tasks) == sorted(
        one.task_id for one in live.tasks
    )
    replayed = list(replay(events, CheapestFeasible()))
    assert len(replayed) == 25
    assert [one.step for one in replayed if not one.same] == []
    again = FleetState()
    for event in sorted(events, key=lambda one: one.t_s):
        again.apply(event)
    step = replayed[-1].step
    now_s = events[-1].t_s + 1.0
    mine, theirs = again.view(step, now_s), recorder.state.view(step, now_s)
    assert mine.running.tolist() == theirs.running.tolist() == [0.0, 0.0]
    assert mine.correction.tolist() == theirs.correction.tolist()
    assert mine.expected == theirs.expected
