"""A step whose answer is late gets a second attempt elsewhere, and the first answer counts."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.gateway.conftest import pool_spec
from tests.gateway.keys_rig import keyed_gateway, minted
from tests.gateway.raw_upstream import (
    STREAM,
    WHOLE,
    Call,
    RawUpstream,
    chunk,
    piece,
    raw_upstream,
    usage_event,
    whole,
)

from steelyard.domain.events import (
    HEDGED_AWAY,
    AttemptFinished,
    Event,
    PoolAdded,
    StepPlaced,
)
from steelyard.domain.key import KeyTerms
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.keys_costs import MostCosts
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.ledger.ledger import Ledger
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay
from steelyard.pools.backend import LlmBackend
from steelyard.pools.endpoint import OpenAiEndpointPool
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.journal import Journal
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_log import MemoryEventLog
from steelyard.store.open_store import open_store

BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BAD = b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
# Enough of it that the short way, which never hedges, is not taken.
NAMED = {"Steelyard-Agent": "a", "Steelyard-Task": "t"}


async def answer(call: Call) -> None:
    if b'"stream": true' not in call.body:
        await call.send(whole(json.dumps(WHOLE).encode()))
        return
    await call.send(STREAM)
    for data in (piece("Hi"), piece("", "stop"), usage_event(), b"data: [DONE]\n\n"):
        await call.send(chunk(data))
    await call.send(b"0\r\n\r\n")


async def silent(call: Call) -> None:
    await call.left.wait()


class Rig:
    """A gateway in front of one pool with two replicas, of which each is an upstream."""

    def __init__(self, http: aiohttp.ClientSession, log: MemoryEventLog, metrics: Metrics) -> None:
        self.http = http
        self.log = log
        self.metrics = metrics
        self.changed = asyncio.Event()

    def of_kind(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.log.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[Event], count: int = 1) -> None:
        async with asyncio.timeout(10.0):
            while len(self.of_kind(kind)) < count:
                self.changed.clear()
                await self.changed.wait()

    def ends(self) -> dict[int, tuple[str, str]]:
        return {one.attempt: (one.outcome, one.error_code) for one in self.of_kind(AttemptFinished)}

    def replicas(self) -> dict[int, int]:
        return {one.step.attempt: one.decision.replica for one in self.of_kind(StepPlaced)}

    async def ask(self, headers: dict[str, str], **more: Any) -> tuple[int, bytes]:
        told = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        async with self.http.post(
            "/v1/chat/completions", json={**told, **more}, headers={**NAMED, **headers}
        ) as response:
            return response.status, await response.read()

    def check_books(self) -> None:
        """Every fold of the log must know steps with two open attempts."""
        events = self.log.events
        assert [one.step for one in replay(events, CheapestFeasible()) if not one.same] == []
        ended = self.of_kind(AttemptFinished)
        ledger = Ledger()
        for event in events:
            ledger.apply(event)
        assert math.isclose(ledger.cost_usd, math.fsum(one.cost_usd for one in ended))
        assert len(ledger.attempts) == len(ended) == len(self.of_kind(StepPlaced))
        journal = Journal.of(events)
        assert not any(step.open for step in journal.in_order())
        shown = self.metrics.render().decode()
        assert 'steelyard_num_requests_running{pool="lab"} 0' in shown
        assert 'steelyard_num_requests_waiting{pool="lab"} 0' in shown


@asynccontextmanager
async def gateway(
    urls: Sequence[str], frac: float = 1.0, cap: int = 8
) -> AsyncGenerator[Rig, None]:
    pool = OpenAiEndpointPool(list(urls), ["m"])
    await pool.start()
    log, metrics = MemoryEventLog(), Metrics()
    recorder = Recorder(WallClock(), log)
    recorder.subscribe(metrics.apply)
    spec = msgspec.structs.replace(pool_spec("lab", "m", cap), replicas=len(urls))
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
    dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool}, {})
    dispatcher.hedge_up_to(frac)
    async with (
        serve(GatewaySettings(port=0), dispatcher, metrics) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        rig = Rig(http, log, metrics)
        dispatcher.subscribe(lambda _: rig.changed.set())
        yield rig
    await pool.close()


@asynccontextmanager
async def two_replicas(
    first: Any, second: Any, **more: Any
) -> AsyncGenerator[tuple[Rig, RawUpstream, RawUpstream], None]:
    """Steps without anything that is known go to the first one."""
    async with AsyncExitStack() as stack:
        one, one_url = await stack.enter_async_context(raw_upstream(first))
        two, two_url = await stack.enter_async_context(raw_upstream(second))
        rig = await stack.enter_async_context(gateway([one_url, two_url], **more))
        yield rig, one, two


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("more", [{}, {"Idempotency-Key": "t/3"}], ids=["relayed", "journalled"])
async def test_the_second_attempt_answers_when_the_first_is_silent(
    stream: bool, more: dict[str, str]
) -> None:
    async with two_replicas(silent, answer) as (rig, one, two):
        status, body = await rig.ask(more, stream=stream)
        assert status == 200
        assert b"Hi" in body
        await asyncio.wait_for(one.calls[0].left.wait(), 10)
        assert (len(one.calls), len(two.calls)) == (1, 1)
        assert rig.ends() == {0: ("cancelled", HEDGED_AWAY), 1: ("ok", "")}
        assert rig.replicas() == {0: 0, 1: 1}
        hedge = rig.of_kind(StepPlaced)[1]
        assert hedge.decision.reason.endswith("beside an attempt that is late")
        lost = rig.of_kind(AttemptFinished)[0]
        # Its prompt was being read: a hedge is not free.
        assert lost.usage.input_tokens > 0
        assert lost.cost_usd > 0.0
        shown = rig.metrics.render().decode()
        assert 'steelyard_hedges_total{pool="lab"} 1' in shown
        assert 'steelyard_hedged_away_total{pool="lab",which="first"} 1' in shown
        rig.check_books()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_attempt_is_cut_short_when_the_first_answers_after_all(
    stream: bool,
) -> None:
    second_came = asyncio.Event()

    async def late(call: Call) -> None:
        await second_came.wait()
        await answer(call)

    async def beside(call: Call) -> None:
        second_came.set()
        await call.left.wait()

    async with two_replicas(late, beside) as (rig, _, two):
        assert (await rig.ask({}, stream=stream))[0] == 200
        await asyncio.wait_for(two.calls[0].left.wait(), 10)
        assert rig.ends() == {0: ("ok", ""), 1: ("cancelled", HEDGED_AWAY)}
        assert 'which="second"} 1' in rig.metrics.render().decode()
        rig.check_books()


async def test_an_answer_in_time_has_no_second_attempt() -> None:
    async with two_replicas(answer, answer) as (rig, _, _two):
        for _ in range(5):
            assert (await rig.ask({}))[0] == 200
        assert [one.step.attempt for one in rig.of_kind(StepPlaced)] == [0] * 5
        rig.check_books()


async def test_the_second_attempt_answers_when_the_first_fails_beside_it() -> None:
    second_came, first_failed = asyncio.Event(), asyncio.Event()

    async def fails(call: Call) -> None:
        await second_came.wait()
        await call.send(BROKEN)

    async def goes_on(call: Call) -> None:
        second_came.set()
        await first_failed.wait()
        await answer(call)

    async with two_replicas(fails, goes_on) as (rig, _, two):
        asked = asyncio.create_task(rig.ask({}))
        await rig.wait_for(AttemptFinished)
        first_failed.set()
        assert (await asked)[0] == 200
        assert rig.ends() == {0: ("failed", "pool_unavailable"), 1: ("ok", "")}
        assert len(two.calls) == 1
        rig.check_books()


async def test_the_step_is_tried_again_when_both_fail() -> None:
    second_came = asyncio.Event()

    async def fails(call: Call) -> None:
        await second_came.wait()
        await call.send(BROKEN)

    async def fails_once(call: Call) -> None:
        second_came.set()
        await call.send(BROKEN)

    async with two_replicas(fails, fails_once) as (rig, one, two):
        asked = asyncio.create_task(rig.ask({}))
        await rig.wait_for(AttemptFinished, 2)
        one.script = two.script = answer
        assert (await asked)[0] == 200
        assert [rig.ends()[number][0] for number in range(3)] == ["failed", "failed", "ok"]
        rig.check_books()


async def test_a_request_that_is_wrong_is_not_left_to_the_second_attempt() -> None:
    second_came = asyncio.Event()

    async def refuses(call: Call) -> None:
        await second_came.wait()
        await call.send(BAD)

    async def beside(call: Call) -> None:
        second_came.set()
        await call.left.wait()

    async with two_replicas(refuses, beside) as (rig, _, two):
        assert (await rig.ask({}))[0] == 400
        await asyncio.wait_for(two.calls[0].left.wait(), 10)
        assert {number: end[0] for number, end in rig.ends().items()} == {
            0: "failed",
            1: "cancelled",
        }
        rig.check_books()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_both(stream: bool) -> None:
    async with two_replicas(silent, silent) as (rig, one, two):
        asked = asyncio.create_task(rig.ask({}, stream=stream))
        await asyncio.wait_for(one.came.wait(), 10)
        await asyncio.wait_for(two.came.wait(), 10)
        asked.cancel()
        await asyncio.wait_for(one.calls[0].left.wait(), 10)
        await asyncio.wait_for(two.calls[0].left.wait(), 10)
        await rig.wait_for(AttemptFinished, 2)
        assert rig.ends() == {0: ("cancelled", ""), 1: ("cancelled", "")}
        rig.check_books()


async def test_nothing_is_hedged_without_the_setting_or_on_the_short_way() -> None:
    async with two_replicas(silent, answer, frac=0.0) as (rig, one, two):
        asked = asyncio.create_task(rig.ask({}))
        await asyncio.wait_for(one.came.wait(), 10)
        await asyncio.sleep(0.3)
        assert two.calls == []
        asked.cancel()
        await rig.wait_for(AttemptFinished)
    async with two_replicas(silent, answer) as (rig, one, two):
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        # A first one opens the connection without which the short way is not taken.
        one.script = answer
        async with rig.http.post("/v1/chat/completions", json=body) as response:
            await response.read()
        one.script = silent
        one.came.clear()
        asked_plainly = asyncio.create_task(rig.http.post("/v1/chat/completions", json=body))
        await asyncio.wait_for(one.came.wait(), 10)
        await asyncio.sleep(0.3)
        assert two.calls == []
        asked_plainly.cancel()
        await asyncio.wait_for(one.calls[-1].left.wait(), 10)


async def test_hedges_keep_to_their_share() -> None:
    async with two_replicas(silent, answer, frac=0.25) as (rig, one, _):
        # The one that is there at first.
        assert (await rig.ask({"Steelyard-Task": "t1"}, max_tokens=1))[0] == 200
        one.came.clear()
        one.script = answer
        for number in range(2):
            assert (await rig.ask({"Steelyard-Task": f"u{number}"}))[0] == 200
        one.script = silent
        asked = asyncio.create_task(rig.ask({"Steelyard-Task": "t2"}))
        await rig.wait_for(StepPlaced, 5)
        attempts = [placed.step.attempt for placed in rig.of_kind(StepPlaced)]
        await asyncio.sleep(0.3)
        assert attempts.count(1) == 1
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_there_is_no_second_attempt_without_room_elsewhere() -> None:
    async with two_replicas(silent, silent, cap=1) as (rig, one, two):
        busy = [asyncio.create_task(rig.ask({"Steelyard-Task": f"b{n}"})) for n in range(2)]
        await asyncio.wait_for(one.came.wait(), 10)
        await asyncio.wait_for(two.came.wait(), 10)
        await asyncio.sleep(0.3)
        assert rig.replicas() == {0: 1}
        assert len(rig.of_kind(StepPlaced)) == 2
        for task in busy:
            task.cancel()
        await rig.wait_for(AttemptFinished, 2)
        rig.check_books()


@pytest.mark.parametrize(("budget_usd", "attempts"), [(2.4e-6, 1), (4.0e-6, 2)])
async def test_a_tasks_budget_must_cover_both(budget_usd: float, attempts: int) -> None:
    async with two_replicas(silent, silent) as (rig, one, two):
        budget = {"Steelyard-Budget-Usd": repr(budget_usd)}
        asked = asyncio.create_task(rig.ask(budget, max_tokens=8))
        await asyncio.wait_for(one.came.wait(), 10)
        if attempts > 1:
            await asyncio.wait_for(two.came.wait(), 10)
        else:
            await asyncio.sleep(0.3)
        placed = rig.of_kind(StepPlaced)
        assert len(placed) == attempts
        assert math.fsum(one.decision.predicted_cost_usd for one in placed) <= budget_usd
        asked.cancel()
        await rig.wait_for(AttemptFinished, attempts)
        rig.check_books()


SCRIPTED: dict[str, Any] = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 8,
}


def set_aside_usd(body: dict[str, Any]) -> float:
    """What is set aside for one such step: one token per byte, and the rest of its limits."""
    call = LlmCall(model="scripted", input_tokens=9, max_output_tokens=8)
    step = Step(task_id="t", step_id=0, agent="", name="chat", call=call)
    pools = (pool_spec("a-slow", "scripted", 64),)
    return MostCosts().usd(pools, step, 8, json.dumps(body).encode())


async def test_what_is_set_aside_for_two_is_free_again_when_one_of_them_has_ended(
    tmp_path: Path,
) -> None:
    silent_for_ever, go_on = asyncio.Event(), asyncio.Event()
    slow = ScriptedLlmPool((ScriptedAnswer(before_first=silent_for_ever),))
    fast = ScriptedLlmPool((ScriptedAnswer(before_each=go_on), ScriptedAnswer()))
    pools: dict[str, LlmBackend] = {"a-slow": slow, "b-fast": fast}
    body = {**SCRIPTED, "stream": True}
    # Not enough for a third.
    terms = KeyTerms(name="k", budget_usd=2.9 * set_aside_usd(body), pools=())
    token, key = minted("k1", terms)
    async with keyed_gateway(tmp_path / "s.db", pools, key) as rig:
        rig.dispatcher.hedge_up_to(1.0)
        one_ended = asyncio.Event()
        rig.dispatcher.subscribe(
            lambda event: one_ended.set() if isinstance(event, AttemptFinished) else None
        )
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{rig.server.base_url}/chat/completions"
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json=body) as one:
            assert await one.content.readany()
            await asyncio.wait_for(one_ended.wait(), 10)
            assert slow.cancelled == 1
            silent_for_ever.set()
            # The first one holds its place yet, and no more than that.
            async with http.post(url, json=SCRIPTED) as two:
                assert two.status == 200
            go_on.set()
            await one.read()


@pytest.mark.parametrize(("steps", "attempts"), [(1.5, 1), (4.0, 2)])
async def test_a_keys_budget_must_cover_both_and_is_charged_for_both(
    steps: float, attempts: int, tmp_path: Path
) -> None:
    free = asyncio.Event()
    slow = ScriptedLlmPool((ScriptedAnswer(before_first=free, input_tokens=250),))
    fast = ScriptedLlmPool((ScriptedAnswer(input_tokens=250),))
    pools: dict[str, LlmBackend] = {"a-slow": slow, "b-fast": fast}
    body, one_usd = SCRIPTED, set_aside_usd(SCRIPTED)
    token, key = minted("k1", KeyTerms(name="k", budget_usd=steps * one_usd))
    async with keyed_gateway(tmp_path / "s.db", pools, key) as rig:
        rig.dispatcher.hedge_up_to(1.0)
        ended: list[AttemptFinished] = []
        rig.dispatcher.subscribe(
            lambda event: ended.append(event) if isinstance(event, AttemptFinished) else None
        )
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            asked = asyncio.create_task(
                http.post(f"{rig.server.base_url}/chat/completions", json=body)
            )
            await asyncio.wait_for(slow.wait_in_flight(1), 10)
            if attempts == 1:
                await asyncio.sleep(0.3)
                free.set()
            response = await asyncio.wait_for(asked, 10)
            assert response.status == 200
            await response.read()
        assert (len(slow.requests), len(fast.requests)) == (1, attempts - 1)
        assert len(ended) == attempts
        spent_usd = math.fsum(one.cost_usd for one in ended)
    with open_store(tmp_path / "s.db") as store:
        booked = [one.spent_usd for one in store.keys.spends().result() if one.period == "total"]
    assert math.isclose(math.fsum(booked), spent_usd)
    assert spent_usd <= steps * one_usd
