"""What a minted key allows, from the outside."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from tests.gateway.keys_rig import keyed_gateway, minted

from steelyard.domain.events import StepPlaced, TaskSubmitted
from steelyard.domain.key import KeyTerms
from steelyard.gateway.keys_ring import SEEN_WITHIN_S
from steelyard.gateway.settings import GatewaySettings
from steelyard.pools.backend import LlmBackend
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.store.event_store import read_store

HELLO: Any = [{"role": "user", "content": "hello"}]


def client(base_url: str, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=token, max_retries=0)


async def ask(who: openai.AsyncOpenAI, **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "scripted", "messages": HELLO, "max_tokens": 4, **more}
    create: Any = who.chat.completions.create
    return await create(**asked)


def pools() -> dict[str, LlmBackend]:
    return {"lab": ScriptedLlmPool()}


async def ask_on(who: openai.AsyncOpenAI, times: int, pause_s: float = 0.0) -> None:
    for _ in range(times):
        await ask(who)
        await asyncio.sleep(pause_s)


async def test_a_minted_key_is_needed_and_nothing_but_it_is_taken(tmp_path: Path) -> None:
    token, key = minted("a1", KeyTerms(name="a"))
    async with keyed_gateway(tmp_path / "s.db", pools(), key) as rig:
        async with client(rig.server.base_url, token) as who:
            assert (await ask(who)).choices[0].message.content == "Hello world"
        other, _ = minted("a1", KeyTerms(name="a"))
        for wrong in (other, token[:-1], token + "x", "sk-sy-", "sk-sy-none-x", "unused"):
            async with client(rig.server.base_url, wrong) as who:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await ask(who)
                assert caught.value.code == "invalid_api_key"


async def test_a_revoked_key_stops_within_the_stated_time(tmp_path: Path) -> None:
    token, key = minted("a1", KeyTerms(name="a"))
    async with (
        keyed_gateway(tmp_path / "s.db", pools(), key) as rig,
        client(rig.server.base_url, token) as who,
    ):
        await ask(who)
        gone = msgspec.structs.replace(key, revoked_s=2.0)
        await asyncio.wrap_future(rig.store.keys.put(gone))
        # Ten times as long, for busy machines.
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            await ask_on(who, int(10.0 * SEEN_WITHIN_S / 0.02), 0.02)


async def test_expiry_and_rotation_are_a_matter_of_time(tmp_path: Path) -> None:
    old, expired = minted("e1", KeyTerms(name="e", expires_s=time.time() - 1.0))
    first, before = minted("r1", KeyTerms(name="r"))
    second, after = minted("r1", KeyTerms(name="r"))
    rotated = msgspec.structs.replace(
        after, old_digest=before.digest, old_until_s=time.time() + 60.0
    )
    _, over = minted("o1", KeyTerms(name="o"))
    late, ended = minted("o1", KeyTerms(name="o"))
    ended = msgspec.structs.replace(over, old_digest=ended.digest, old_until_s=time.time() - 1.0)
    async with keyed_gateway(tmp_path / "s.db", pools(), expired, rotated, ended) as rig:
        for token in (first, second):
            async with client(rig.server.base_url, token) as who:
                await who.models.list()
        for token in (old, late):
            async with client(rig.server.base_url, token) as who:
                with pytest.raises(openai.AuthenticationError):
                    await who.models.list()


async def test_models_and_pools_of_a_key_are_the_only_ones_for_it(tmp_path: Path) -> None:
    both: dict[str, LlmBackend] = {
        "cheap": ScriptedLlmPool(),
        "lab": ScriptedLlmPool(),
        "other": ScriptedLlmPool(model="secret"),
    }
    token, key = minted("p1", KeyTerms(name="p", pools=("lab",), models=("scripted",)))
    blind, none = minted("n1", KeyTerms(name="n", pools=("other",)))
    async with keyed_gateway(tmp_path / "s.db", both, key, none) as rig:
        async with client(rig.server.base_url, token) as who:
            for _ in range(5):
                answer = await who.chat.completions.with_raw_response.create(
                    model="scripted", messages=HELLO
                )
                assert answer.headers["steelyard-pool"] == "lab"
            assert [one.id for one in (await who.models.list()).data] == ["scripted"]
            with pytest.raises(openai.PermissionDeniedError) as caught:
                await ask(who, model="secret")
            assert (caught.value.code, caught.value.param) == ("not_allowed", "model")
            assert (await who.models.retrieve("scripted")).id == "scripted"
            with pytest.raises(openai.PermissionDeniedError):
                await who.models.retrieve("secret")
        async with client(rig.server.base_url, blind) as who:
            with pytest.raises(openai.PermissionDeniedError, match="pool"):
                await ask(who)


async def test_a_key_of_a_task_carries_the_task(tmp_path: Path) -> None:
    deadline_s = time.time() + 3600.0
    terms = KeyTerms(name="t", agent="coder", task_id="fix-7", deadline_s=deadline_s, budget_usd=1)
    token, key = minted("t1", terms)
    async with keyed_gateway(tmp_path / "s.db", pools(), key) as rig:
        async with client(rig.server.base_url, token) as who:
            await ask(who)
            await ask(who, extra_headers={"Steelyard-Deadline": "7200"})
            for headers in ({"Steelyard-Task": "fix-8"}, {"Steelyard-Agent": "writer"}):
                with pytest.raises(openai.PermissionDeniedError, match="is not for"):
                    await ask(who, extra_headers=headers)
        events = list(read_store(rig.store))
    (opened,) = [one for one in events if isinstance(one, TaskSubmitted)]
    assert (opened.task_id, opened.agent) == ("fix-7", "coder")
    assert (opened.deadline_s, opened.budget_usd) == (deadline_s, 1.0)
    steps = [one.step for one in events if isinstance(one, StepPlaced)]
    assert [one.key for one in steps] == [("fix-7", 0), ("fix-7", 1)]
    assert {one.deadline_s for one in steps} == {deadline_s}


async def test_a_session_of_others_is_no_reason_to_refuse_the_key_of_a_task(tmp_path: Path) -> None:
    token, key = minted("f7", KeyTerms(name="f", task_id="fix-7"))
    async with keyed_gateway(tmp_path / "s.db", pools(), key) as rig:
        async with client(rig.server.base_url, token) as who:
            await ask(who, extra_headers={"x-session-id": "mine"})
            await who.responses.create(
                model="scripted", input="hello", extra_headers={"x-session-id": "mine"}
            )
        placed = [one.step for one in read_store(rig.store) if isinstance(one, StepPlaced)]
        assert [one.task_id for one in placed] == ["fix-7", "fix-7"]


async def test_a_trace_is_no_reason_to_refuse_the_key_of_a_task(tmp_path: Path) -> None:
    token, key = minted("f7", KeyTerms(name="f", task_id="fix-7"))
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    async with keyed_gateway(tmp_path / "s.db", pools(), key) as rig:
        async with client(rig.server.base_url, token) as who:
            await ask(who, extra_headers=trace)
        [placed] = [one.step for one in read_store(rig.store) if isinstance(one, StepPlaced)]
        assert placed.task_id == "fix-7"


async def test_a_key_is_told_only_of_models_that_it_may_use(tmp_path: Path) -> None:
    token, key = minted("m1", KeyTerms(name="m", models=("other",)))
    async with keyed_gateway(tmp_path / "s.db", pools(), key) as rig:
        async with client(rig.server.base_url, token) as who:
            with pytest.raises(openai.NotFoundError) as refused:
                await ask(who, model="none")
        assert "scripted" not in str(refused.value)


async def test_a_key_of_an_agent_does_not_reach_into_the_tasks_of_others(tmp_path: Path) -> None:
    mine, key = minted("a1", KeyTerms(name="a", agent="coder"))
    theirs, other = minted("b1", KeyTerms(name="b", agent="writer"))
    async with keyed_gateway(tmp_path / "s.db", pools(), key, other) as rig:
        task = {"Steelyard-Task": "shared"}
        async with client(rig.server.base_url, mine) as who:
            await ask(who, extra_headers=task)
        async with client(rig.server.base_url, theirs) as who:
            with pytest.raises(openai.PermissionDeniedError, match="agent 'coder'"):
                await ask(who, extra_headers=task)
        placed = [one for one in read_store(rig.store) if isinstance(one, StepPlaced)]
    assert [one.step.agent for one in placed] == ["coder"]


async def test_rates_are_kept_and_say_when_to_come_back(tmp_path: Path) -> None:
    fast, requests = minted("q1", KeyTerms(name="q", requests_per_s=0.01))
    long, tokens = minted("k1", KeyTerms(name="k", tokens_per_min=12.0))
    tiny, never = minted("z1", KeyTerms(name="z", tokens_per_min=1.0))
    async with keyed_gateway(tmp_path / "s.db", pools(), requests, tokens, never) as rig:
        for token, kind in ((fast, "requests"), (long, "tokens")):
            async with client(rig.server.base_url, token) as who:
                await ask(who)
                with pytest.raises(openai.RateLimitError) as caught:
                    await ask_on(who, 5)
                body: Any = caught.value.body
                assert (body["type"], body["code"]) == (kind, "rate_limit_exceeded")
                assert int(caught.value.response.headers["retry-after"]) >= 1
                assert int(caught.value.response.headers["retry-after-ms"]) > 0
        async with client(rig.server.base_url, tiny) as who:
            with pytest.raises(openai.RateLimitError, match="shorten") as caught:
                await ask(who)
            assert caught.value.response.headers["x-should-retry"] == "false"


async def test_what_was_refused_for_its_cost_uses_up_no_tokens(tmp_path: Path) -> None:
    token, key = minted("p1", KeyTerms(name="p", budget_usd=1e-9, tokens_per_min=30.0))
    async with (
        keyed_gateway(tmp_path / "s.db", pools(), key) as rig,
        client(rig.server.base_url, token) as who,
    ):
        for _ in range(12):
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(who)
            assert caught.value.code == "insufficient_quota"


async def test_a_minted_key_opens_metrics_only_where_it_says_so(tmp_path: Path) -> None:
    plain, key = minted("a1", KeyTerms(name="a"))
    wide, admin = minted("c1", KeyTerms(name="c", control=True))
    async with (
        keyed_gateway(tmp_path / "s.db", pools(), key, admin) as rig,
        aiohttp.ClientSession(rig.server.url) as http,
    ):
        for token, status in ((plain, 403), (wide, 200), ("", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            for path in ("/metrics", "/api/tasks"):
                async with http.get(path, headers=headers) as response:
                    assert response.status == status


async def test_keys_of_the_file_still_open_everything(tmp_path: Path) -> None:
    settings = GatewaySettings(api_keys=("of-the-file",))
    token, key = minted("a1", KeyTerms(name="a"))
    async with keyed_gateway(tmp_path / "s.db", pools(), key, settings=settings) as rig:
        for one in ("of-the-file", token):
            async with client(rig.server.base_url, one) as who:
                await ask(who)


async def test_a_key_is_in_no_log_no_store_and_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token, key = minted("a1", KeyTerms(name="a", budget_usd=1.0, models=("scripted",)))
    wrong, _ = minted("a1", KeyTerms(name="a"))
    told = ""
    settings = GatewaySettings(require_key=True, access_log=True)
    async with keyed_gateway(tmp_path / "s.db", pools(), key, settings=settings) as rig:
        for one, model in ((token, "scripted"), (token, "other"), (wrong, "scripted")):
            async with client(rig.server.base_url, one) as who:
                try:
                    answer = await who.chat.completions.with_raw_response.create(
                        model=model, messages=HELLO, user="u"
                    )
                    told += answer.text + str(answer.headers)
                except openai.APIStatusError as error:
                    told += error.response.text + str(error.response.headers)
    told += "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("steelyard")
    )
    captured = capfd.readouterr()
    told += captured.out + captured.err
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "a1" in told
    for secret in (token.split("-", 3)[3], wrong.split("-", 3)[3]):
        assert secret not in told
        assert secret.encode() not in stored


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_a_session_of_others_never_takes_a_request_from_its_keys_task(
    tmp_path: Path, path: str
) -> None:
    token, key = minted("t1", KeyTerms(name="t", agent="coder", task_id="fix-7"))
    async with (
        keyed_gateway(tmp_path / "s.db", pools(), key) as rig,
        aiohttp.ClientSession() as http,
    ):
        headers = {"Authorization": f"Bearer {token}", "x-claude-code-session-id": "s-1"}
        body = {"model": "scripted", "messages": HELLO, "input": "hello"}
        if path == "responses":
            del body["messages"]
        async with http.post(f"{rig.server.base_url}/{path}", json=body, headers=headers) as got:
            assert got.status == 200, await got.text()
            assert got.headers["steelyard-task"] == "fix-7"
