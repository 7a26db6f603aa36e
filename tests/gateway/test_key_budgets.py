"""Budgets of keys: never more than they allow, whatever asks at once, and however answers end."""

import asyncio
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from tests.gateway.conftest import pool_spec
from tests.gateway.keys_rig import KeyRig, keyed_gateway, minted

from steelyard.domain.events import AttemptFinished
from steelyard.domain.key import ApiKey, KeyTerms
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.keys_costs import MostCosts
from steelyard.pools.backend import LlmBackend
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool
from steelyard.store.event_store import read_store
from steelyard.store.open_store import open_store

MESSAGES: Any = [{"role": "user", "content": "hello there"}]
# A step of 250 and 8 tokens at the rig's prices; up to 400 and 8 are reserved for it.
STEP_USD = (0.001 / 64 + 250 * 0.0001 + 8 * 0.001 / 64) * 3.6 / 3600.0
LONG = ScriptedAnswer(pieces=("x",) * 8, input_tokens=250)


def body(**more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": MESSAGES, "max_tokens": 8, **more}


def client(rig: KeyRig, token: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=rig.server.base_url, api_key=token, max_retries=0)


async def ask(who: openai.AsyncOpenAI, **more: Any) -> Any:
    create: Any = who.chat.completions.create
    return await create(**body(**more))


async def one_after_another(who: openai.AsyncOpenAI, count: int) -> None:
    for _ in range(count):
        await ask(who)


async def flood(base_url: str, token: str, count: int, seed: int) -> list[tuple[int, str]]:
    """So many requests at once, streamed or not, some left by their client: status and code."""
    draws = random.Random(seed)  # noqa: S311
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:

        async def one(stream: bool, leaves: bool) -> tuple[int, str]:
            asked = body(stream=stream)
            async with http.post(f"{base_url}/chat/completions", json=asked) as response:
                if response.status != 200:
                    told = await response.json()
                    return response.status, told["error"]["code"]
                if leaves:
                    await response.content.readany()
                    return 200, "left"
                await response.read()
                return 200, ""

        drawn = [(draws.random() < 0.5, draws.random() < 0.2) for _ in range(count)]
        return list(await asyncio.gather(*(one(*each) for each in drawn)))


async def test_a_thousand_steps_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    budget_usd = 40.0 * STEP_USD
    token, key = minted("b1", KeyTerms(name="b", budget_usd=budget_usd))
    pool = ScriptedLlmPool((LONG,))
    async with keyed_gateway(tmp_path / "s.db", {"lab": pool}, key) as rig:
        ended: list[tuple[int, str]] = []
        for seed in range(4):
            ended += await flood(rig.server.base_url, token, 100, seed)
    with open_store(tmp_path / "s.db") as store:
        ends = [one for one in read_store(store) if isinstance(one, AttemptFinished)]
        spent = {one.period: one.spent_usd for one in store.keys.spends().result()}
        assert not store.keys.holds().result()
    total = math.fsum(one.cost_usd for one in ends)
    assert total <= budget_usd
    assert math.isclose(spent["total"], total, rel_tol=1e-9)
    refused = {code for status, code in ended if status == 429}
    assert refused <= {"insufficient_quota", "budget_reserved"}
    assert refused
    assert len([1 for status, _ in ended if status == 200]) > 20


_GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.gateway.keys_rig import keyed_gateway
from steelyard.pools.scripted import ScriptedAnswer, ScriptedLlmPool

async def main():
    pool = ScriptedLlmPool((ScriptedAnswer(pieces=("x",) * 8, input_tokens=250),))
    async with keyed_gateway(sys.argv[1], {"lab": pool}) as rig:
        print(rig.server.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main())
"""


async def _spawn(where: str) -> tuple[asyncio.subprocess.Process, str]:
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _GATEWAY, where),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30.0)
    return process, line.decode().strip()


async def test_two_processes_of_one_store_stay_within_a_budget(where: str) -> None:
    budget_usd = 60.0 * STEP_USD
    token, key = minted("b1", KeyTerms(name="b", budget_usd=100.0, budget_usd_per_day=budget_usd))
    with open_store(where) as store:
        store.keys.put(key).result()
    spawned = await asyncio.gather(_spawn(where), _spawn(where))
    ended = await asyncio.gather(*(flood(url, token, 80, n) for n, (_, url) in enumerate(spawned)))
    for process, _ in spawned:
        await process.communicate(b"\n")
        assert process.returncode == 0
    with open_store(where) as store:
        ends = [one for one in read_store(store) if isinstance(one, AttemptFinished)]
        spent = {one.period: one.spent_usd for one in store.keys.spends().result()}
    total = math.fsum(one.cost_usd for one in ends)
    assert total <= budget_usd
    assert math.isclose(spent["total"], total, rel_tol=1e-9)
    served = [status for many in ended for status, _ in many if status == 200]
    assert len(served) > 20
    assert len(served) < 160


async def test_what_is_used_up_is_said_as_openai_says_it(tmp_path: Path) -> None:
    token, key = minted("b1", KeyTerms(name="b", budget_usd=1e-9, budget_usd_per_day=1e-10))
    daily, day = minted("d1", KeyTerms(name="d", budget_usd_per_day=1e-9))
    async with keyed_gateway(tmp_path / "s.db", {"lab": ScriptedLlmPool()}, key, day) as rig:
        for one, in_vain in ((token, True), (daily, True)):
            async with client(rig, one) as who:
                with pytest.raises(openai.RateLimitError, match="too little budget") as caught:
                    await ask(who)
            told: Any = caught.value.body
            assert (told["type"], told["code"]) == ("insufficient_quota", "insufficient_quota")
            assert (caught.value.response.headers["x-should-retry"] == "false") is in_vain
    assert costs_usd_of(tmp_path) == 0.0


def costs_usd_of(folder: Path) -> float:
    with open_store(folder / "s.db") as store:
        ends = [one for one in read_store(store) if isinstance(one, AttemptFinished)]
    return math.fsum(one.cost_usd for one in ends)


def most_usd(asked: bytes, output_tokens: int | None) -> float:
    """What is set aside for a request to the rig's pool."""
    call = LlmCall(model="scripted", input_tokens=1, max_output_tokens=1)
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=call)
    return MostCosts().usd((pool_spec("lab", "scripted", 64),), step, output_tokens, asked)


async def test_several_answers_without_a_limit_are_set_aside_each(tmp_path: Path) -> None:
    budget_usd = 1.5 * most_usd(b"x" * 200, None)
    token, key = minted("b1", KeyTerms(name="b", budget_usd=budget_usd))
    pool = ScriptedLlmPool((LONG,))
    async with keyed_gateway(tmp_path / "s.db", {"lab": pool}, key) as rig, client(rig, token) as w:
        with pytest.raises(openai.RateLimitError, match="too little budget"):
            await w.chat.completions.create(model="scripted", messages=MESSAGES, n=3)
        await w.chat.completions.create(model="scripted", messages=MESSAGES)


async def test_a_conversation_that_goes_on_is_set_aside_from_its_beginning(tmp_path: Path) -> None:
    first: dict[str, Any] = {"model": "scripted", "input": "x" * 4000, "max_output_tokens": 8}
    budget_usd = 1.1 * most_usd(json.dumps(first).encode(), 8)
    token, key = minted("b1", KeyTerms(name="b", budget_usd=budget_usd))
    pool = ScriptedLlmPool((ScriptedAnswer(pieces=("x",) * 8, input_tokens=2),))
    async with (
        keyed_gateway(tmp_path / "s.db", {"lab": pool}, key) as rig,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        url = f"{rig.server.base_url}/responses"
        async with http.post(url, json=first) as response:
            assert response.status == 200
            kept = (await response.json())["id"]
        # Each half fits into the budget, both together do not.
        more = {**first, "input": "y" * 2000}
        async with http.post(url, json={**more, "previous_response_id": kept}) as response:
            assert response.status == 429
        async with http.post(url, json=more) as response:
            assert response.status == 200


async def test_a_daily_budget_says_when_the_next_day_is(tmp_path: Path) -> None:
    pool = ScriptedLlmPool((LONG,))
    token, key = minted("d1", KeyTerms(name="d", budget_usd_per_day=3.0 * STEP_USD))
    async with keyed_gateway(tmp_path / "s.db", {"lab": pool}, key) as rig:
        async with client(rig, token) as who:
            with pytest.raises(openai.RateLimitError) as caught:
                await one_after_another(who, 20)
        after_s = int(caught.value.response.headers["retry-after"])
        assert 0 < after_s <= 86_400


async def test_a_streamed_answer_costs_what_it_costs_unstreamed(tmp_path: Path) -> None:
    token, key = minted("b1", KeyTerms(name="b", budget_usd=1.0))
    plain, other = minted("c1", KeyTerms(name="c"))
    pool = ScriptedLlmPool((LONG,))
    async with keyed_gateway(tmp_path / "s.db", {"lab": pool}, key, other) as rig:
        async with client(rig, token) as who:
            stream = await ask(who, stream=True)
            async for _ in stream:
                pass
        async with client(rig, plain) as who:
            await ask(who)
    with open_store(tmp_path / "s.db") as store:
        spends = store.keys.spends().result()
        spent = {one.key_id: one for one in spends if one.period == "total"}
    assert spent["b1"].spent_usd == spent["c1"].spent_usd == costs_usd_of(tmp_path) / 2.0
    assert spent["b1"].tokens == spent["c1"].tokens == 258


@pytest.mark.parametrize("pieces", [1, 3])
async def test_an_answer_cut_off_costs_what_a_short_one_costs(tmp_path: Path, pieces: int) -> None:
    """The client leaves after some tokens, the pool breaks after as many, or that was all."""
    hold = asyncio.Event()
    tokens: dict[str, str] = {}
    keys: list[ApiKey] = []
    for name in ("left", "whole"):
        tokens[name], key = minted(name, KeyTerms(name=name, budget_usd=1.0))
        keys.append(key)
    held = ScriptedAnswer(pieces=("x",) * 8, before_each=hold, input_tokens=4)
    short = ScriptedAnswer(pieces=("x",) * pieces, input_tokens=4)
    pool = ScriptedLlmPool((held, short))
    async with keyed_gateway(tmp_path / "s.db", {"lab": pool}, *keys) as rig:
        async with client(rig, tokens["left"]) as who:
            stream = await ask(who, stream=True)
            seen = 0
            async for chunk in stream:
                seen += bool(chunk.choices and chunk.choices[0].delta.content)
                if seen == pieces:
                    break
                hold.set()
            await stream.close()
        await pool.wait_in_flight(0)
        async with client(rig, tokens["whole"]) as who:
            await ask(who)
        ends = [one for one in read_store(rig.store) if isinstance(one, AttemptFinished)]
    left, whole = ends
    assert left.outcome == "cancelled"
    assert left.usage.output_tokens == whole.usage.output_tokens == pieces
    with open_store(tmp_path / "s.db") as store:
        spends = store.keys.spends().result()
        spent = {one.key_id: one.spent_usd for one in spends if one.period == "total"}
    assert spent == {"left": left.cost_usd, "whole": whole.cost_usd}
    per_prompt_usd = 0.0001 * 3.6 / 3600.0
    more = left.usage.input_tokens - whole.usage.input_tokens
    assert math.isclose(left.cost_usd - whole.cost_usd, more * per_prompt_usd, abs_tol=1e-18)


async def test_earlier_items_of_a_conversation_count_against_the_budget(tmp_path: Path) -> None:
    # 4000 bytes fit, and 2000 more: not both at once, at 1e-7 USD per byte.
    token, key = minted("b1", KeyTerms(name="b", budget_usd=6e-4))
    pool = ScriptedLlmPool((LONG,))
    async with (
        keyed_gateway(tmp_path / "s.db", {"lab": pool}, key) as rig,
        client(rig, token) as who,
    ):
        create: Any = who.responses.create
        asked: dict[str, Any] = {"model": "scripted", "max_output_tokens": 8}
        first = await create(**asked, input="x" * 4000)
        assert await create(**asked, input="x" * 2000)
        with pytest.raises(openai.RateLimitError, match="budget"):
            await create(**asked, input="x" * 2000, previous_response_id=first.id)


async def test_a_rotated_key_goes_on_with_its_responses(tmp_path: Path) -> None:
    old, before = minted("r1", KeyTerms(name="r"))
    new, after = minted("r1", KeyTerms(name="r"))
    other, stranger = minted("o1", KeyTerms(name="o"))
    rotated = msgspec.structs.replace(
        after, old_digest=before.digest, old_until_s=time.time() + 60.0
    )
    pools: dict[str, LlmBackend] = {"lab": ScriptedLlmPool()}
    async with keyed_gateway(tmp_path / "s.db", pools, rotated, stranger) as rig:
        async with client(rig, old) as who:
            first = await who.responses.create(model="scripted", input="Hi")
        async with client(rig, new) as who:
            assert (await who.responses.retrieve(first.id)).id == first.id
        async with client(rig, other) as who:
            with pytest.raises(openai.NotFoundError):
                await who.responses.retrieve(first.id)
