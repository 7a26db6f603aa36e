"""/api/tasks on a real server: what it takes, a worker runs."""

import io
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.gateway.conftest import pool_spec

from steelyard.domain.events import PoolAdded
from steelyard.gateway.server import serve
from steelyard.gateway.settings import GatewayLimits, GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.sqlite_log import SqliteEventLog


@task(name="asks")
async def asks(ctx: TaskContext, question: str) -> list[Any]:
    return [question, await ctx.signal("answer")]


@asynccontextmanager
async def _api(path: Path) -> AsyncGenerator[aiohttp.ClientSession, None]:
    with SqliteEventLog(path) as store:
        dispatcher = Dispatcher(Recorder(WallClock(), store), CheapestFeasible(), {}, {})
        settings = WorkerSettings(look_s=0.02)
        worker = Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (asks,), settings)
        async with (
            serve(GatewaySettings(port=0), dispatcher, store=store) as server,
            worker.working(),
            aiohttp.ClientSession(server.url) as http,
        ):
            yield http


async def test_a_task_is_created_signalled_and_streamed_to_its_end(tmp_path: Path) -> None:
    async with _api(tmp_path / "log.db") as http:
        body = {"agent": "asks", "id": "t1", "input": {"question": "?"}, "deadline_after_s": 60}
        async with http.post("/api/tasks", json=body) as answer:
            assert answer.status == 201
            assert (await answer.json())["task_id"] == "t1"
        signal = {"name": "answer", "value": 42}
        async with http.post("/api/tasks/t1/signal", json=signal) as answer:
            assert answer.status == 202
        async with http.get("/api/tasks/t1/events") as answer:
            text = await answer.text()
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events[-1] == "[DONE]"
        last = msgspec.json.decode(events[-2])
        assert (last["type"], last["result"]) == ("task_finished", ["?", 42])
        async with http.get("/api/tasks/t1") as answer:
            shown = await answer.json()
        assert shown["task"]["state"] == "succeeded"
        assert shown["deadline_s"] - shown["task"]["submitted_s"] == pytest.approx(60.0)
        assert [step["kind"] for step in shown["steps"]] == ["signal"]


async def test_a_task_that_only_requests_name_is_shown_with_its_terms_and_steps(
    tmp_path: Path,
) -> None:
    headers = {"Steelyard-Task": "run-7", "Steelyard-Agent": "coder", "Steelyard-Deadline": "60"}
    headers["Steelyard-Budget-Usd"] = "0.5"
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Say hello"}]}
    with SqliteEventLog(tmp_path / "log.db") as store:
        recorder = Recorder(WallClock(), store)
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=pool_spec("lab", "scripted")))
        dispatcher = Dispatcher(recorder, CheapestFeasible(), {"lab": ScriptedLlmPool()}, {})
        async with (
            serve(GatewaySettings(port=0), dispatcher, store=store) as server,
            aiohttp.ClientSession(server.url) as http,
        ):
            for step in ("plan", "write"):
                sent = {**headers, "Steelyard-Step": step}
                async with http.post("/v1/chat/completions", json=body, headers=sent) as answer:
                    assert answer.status == 200
            async with http.get("/api/tasks/run-7") as answer:
                shown = await answer.json()
            async with http.post("/api/tasks/run-7/cancel") as answer:
                # No worker has it.
                assert answer.status == 404
            assert dispatcher.close_silent(dispatcher.now_s()) == 1
            async with http.get("/api/tasks/run-7") as answer:
                over = await answer.json()
            async with http.post("/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200
            async with http.get("/api/tasks/run-7") as answer:
                again = await answer.json()
    assert (over["task"]["state"], over["finished"]["status"]) == ("succeeded", "succeeded")
    assert (again["task"]["state"], again["finished"]) == ("open", None)
    task = shown["task"]
    assert (task["state"], task["agent"], shown["budget_usd"]) == ("open", "coder", 0.5)
    assert shown["deadline_s"] - task["submitted_s"] == pytest.approx(60.0)
    assert [step["name"] for step in shown["steps"]] == ["plan", "write"]
    assert shown["cost_usd"] > 0.0


async def test_one_key_is_one_task_and_cancelling_ends_it(tmp_path: Path) -> None:
    async with _api(tmp_path / "log.db") as http:
        body = {"agent": "asks", "input": {"question": "?"}, "key": "k"}
        ids: list[str] = []
        for _ in range(2):
            async with http.post("/api/tasks", json=body) as answer:
                ids.append((await answer.json())["task_id"])
        assert ids[0] == ids[1]
        async with http.post(f"/api/tasks/{ids[0]}/cancel") as answer:
            assert answer.status == 202
        async with http.get(f"/api/tasks/{ids[0]}/events") as answer:
            await answer.text()
        async with http.get("/api/tasks?state=cancelled") as answer:
            assert [row["task_id"] for row in (await answer.json())["data"]] == ids[:1]


async def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    async with _api(tmp_path / "log.db") as http:
        async with http.get("/api/tasks/nix") as answer:
            assert answer.status == 404
            assert "nix" in (await answer.json())["error"]["message"]
        async with http.get("/api/tasks/%00") as answer:
            assert answer.status == 404
        async with http.post("/api/tasks", json={"agent": "asks", "inputs": {}}) as answer:
            assert answer.status == 400
            assert "inputs" in (await answer.json())["error"]["message"]


async def test_a_body_that_is_too_long_or_too_deep_is_refused(tmp_path: Path) -> None:
    async with _api(tmp_path / "log.db") as http:
        deep = b'{"agent":"asks","input":{"question":' + b"[" * 3000 + b"]" * 3000 + b"}}"
        async with http.post("/api/tasks", data=deep) as answer:
            assert answer.status == 400
            assert "nested" in (await answer.json())["error"]["message"]
        long = b'"' + b"x" * GatewayLimits().body_bytes
        async with http.post("/api/tasks", data=io.BytesIO(long)) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "request_too_large"


async def test_the_id_of_a_task_can_be_sent_in_a_header_whatever_its_agent_is_called(
    tmp_path: Path,
) -> None:
    async with _api(tmp_path / "log.db") as http:
        async with http.post("/api/tasks", json={"agent": "My agent/" + "x" * 119}) as answer:
            row = await answer.json()
        assert re.fullmatch(r"My-agent-x{55}-[0-9a-f]{12}", row["task_id"])


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with _api(tmp_path / "log.db") as http:
        refused: list[tuple[dict[str, Any], str]] = [
            ({"agent": ""}, "agent is empty"),
            ({"agent": "asks", "budget_usd": -1}, "budget_usd is -1"),
            ({"agent": "asks", "deadline_after_s": 0}, "deadline_after_s is 0"),
            ({"agent": "a\nb"}, "is no name"),
            ({"agent": "asks", "id": "a/b"}, "id 'a/b' is none"),
            ({"agent": "asks", "key": "a\x00"}, "printable characters"),
            # Beyond what a store holds, these would end its writer, and with it the gateway.
            ({"agent": "asks", "priority": 2**63}, "priority is not from"),
            ({"agent": "asks", "priority": -(2**31)}, "priority is not from"),
        ]
        for body, told in refused:
            async with http.post("/api/tasks", json=body) as answer:
                assert answer.status == 400
                assert told in (await answer.json())["error"]["message"]
        async with http.get("/api/tasks?state=done") as answer:
            assert answer.status == 400
        body = {"agent": "asks", "id": "t", "input": {"question": "?"}}
        async with http.post("/api/tasks", json=body), http.post("/api/tasks/t/cancel"):
            pass
        async with http.get("/api/tasks/t/events") as answer:
            await answer.text()
        async with http.post("/api/tasks/t/signal", json={"name": "answer"}) as answer:
            assert answer.status == 400
        async with http.get("/api/tasks/t") as answer:
            assert (await answer.json())["cost_usd"] == 0.0
