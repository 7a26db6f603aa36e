"""A step that its caller numbered is answered once; asked again, it is answered from the log."""

from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import Rig, Start, pool_spec

from steelyard.domain.events import AttemptFinished, PoolAdded
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.sqlite_log import SqliteEventLog

NUMBERED = {"Steelyard-Task": "t", "Steelyard-Step": "ask", "Idempotency-Key": "t/3"}


async def _ask(rig: Rig, text: str, headers: dict[str, str]) -> tuple[int, str, str]:
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": text}]}
    async with rig.http.post("/v1/chat/completions", json=body, headers=headers) as answer:
        told = await answer.json()
        if answer.status != 200:
            return answer.status, told["error"]["message"], ""
        cost = answer.headers["Steelyard-Cost-Usd"]
        return 200, told["choices"][0]["message"]["content"], cost


async def test_a_step_asked_twice_gets_the_recorded_answer_and_costs_once(start: Start) -> None:
    pool = ScriptedLlmPool()
    async with start(pool) as rig:
        first = await _ask(rig, "Say hello", NUMBERED)
        second = await _ask(rig, "Say hello", NUMBERED)
        assert first == second
        assert len(pool.requests) == 1
        assert len(rig.of_kind(AttemptFinished)) == 1
        # Another number is another step; without a number, so is every request.
        await _ask(rig, "Say hello", {**NUMBERED, "Idempotency-Key": "t/4"})
        await _ask(rig, "Say hello", {"Steelyard-Task": "t", "Steelyard-Step": "ask"})
        assert len(pool.requests) == 3


async def test_another_question_under_the_same_number_is_refused(start: Start) -> None:
    pool = ScriptedLlmPool()
    async with start(pool) as rig:
        await _ask(rig, "Say hello", NUMBERED)
        status, message, _ = await _ask(rig, "Say goodbye", NUMBERED)
        assert (status, len(pool.requests)) == (409, 1)
        assert "use a new number" in message


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_is_there_after_a_restart(tmp_path: Path, stream: bool) -> None:
    pool = ScriptedLlmPool()
    texts: list[str] = []
    for _ in range(2):
        with SqliteEventLog(tmp_path / "log.db") as log:
            recorder = Recorder(WallClock(), log)
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec("lab", "scripted")))
            dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": pool}, {})
            async with serve(GatewaySettings(port=0), dispatcher) as server:
                rig = Rig(server, dispatcher, [])
                try:
                    messages: Any = [{"role": "user", "content": "Say hello"}]
                    asked = rig.openai.with_options(default_headers=NUMBERED).chat.completions
                    if stream:
                        chunks = await asked.create(
                            model="scripted", messages=messages, stream=True
                        )
                        pieces = [
                            one.choices[0].delta.content or ""
                            async for one in chunks
                            if one.choices
                        ]
                        texts.append("".join(pieces))
                    else:
                        whole = await asked.create(model="scripted", messages=messages)
                        texts.append(whole.choices[0].message.content or "")
                finally:
                    await rig.close()
    assert texts == ["Hello world", "Hello world"]
    assert len(pool.requests) == 1
