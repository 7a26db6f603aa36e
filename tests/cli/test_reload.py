"""A gateway process is told to change its pools under load, and to stop; no request fails."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from steelyard.cli.reload import run_reload
from steelyard.errors import ConfigError

PROGRAM = [sys.executable, "-m", "steelyard"]


class Upstream:
    """A server on the OpenAI wire that answers slowly enough to be in the middle of something."""

    def __init__(self, name: str, hold_s: float) -> None:
        self.name = name
        self.served = 0
        self.in_flight = 0
        self._hold_s = hold_s
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        self.served += 1
        self.in_flight += 1
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        try:
            if not asked.get("stream"):
                await asyncio.sleep(3 * self._hold_s)
                message = {"role": "assistant", "content": self.name}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                return web.json_response({**head, "choices": [choice], "usage": usage})
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for number in range(3):
                delta = {"content": self.name if number == 0 else "."}
                choice = {"index": 0, "delta": delta, "finish_reason": None}
                await self._event(response, {**head, "choices": [choice]})
                await asyncio.sleep(self._hold_s)
            last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
            await self._event(response, {**head, "choices": [last]})
            await self._event(response, {**head, "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
            return response
        finally:
            self.in_flight -= 1

    @staticmethod
    async def _event(response: web.StreamResponse, payload: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(payload).encode() + b"\n\n")


@asynccontextmanager
async def upstreams(*names: str, hold_s: float = 0.02) -> AsyncGenerator[dict[str, Upstream], None]:
    made = {name: Upstream(name, hold_s) for name in names}
    for one in made.values():
        await one.start()
    try:
        yield made
    finally:
        for one in made.values():
            await one.close()


def pool(upstream: Upstream, usd_per_hour: float = 1.0) -> str:
    return (
        f'[pools.{upstream.name}]\nkind = "endpoint"\nbase_urls = ["{upstream.url}"]\n'
        f'models = ["m"]\nusd_per_hour = {usd_per_hour}\n'
    )


class Process:
    """`steelyard up` in a folder of its own."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.process = process
        self.lines: list[str] = []
        self.base_url = ""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}

    def configure(self, *pools: str, more: str = "") -> None:
        text = "[gateway]\nport = 0\n" + more + "\n" + "\n".join(pools)
        (self.folder / "steelyard.toml").write_text(text, encoding="utf-8")

    async def reload(self) -> tuple[int, str]:
        """What the command does, without starting a program for it each time."""
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setenv("XDG_STATE_HOME", str(self.folder / "state"))
            try:
                path = self.folder / "steelyard.toml"
                await asyncio.to_thread(run_reload, path, 60.0, as_json=False)
            except ConfigError as error:
                return 2, f"{error}\n"
        return 0, out.getvalue()

    async def reload_by_program(self, *options: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "reload", *options),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60.0)
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60.0)


@asynccontextmanager
async def gateway(folder: Path, *pools: str, more: str = "") -> AsyncGenerator[Process, None]:
    text = "[gateway]\nport = 0\n" + more + "\n" + "\n".join(pools)
    (folder / "steelyard.toml").write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "up"),
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        stderr=asyncio.subprocess.PIPE,
    )
    running = Process(folder, process)
    reading = asyncio.create_task(running.read())
    try:
        async with asyncio.timeout(60.0):
            while not running.base_url:
                assert process.returncode is None, running.lines
                for line in running.lines:
                    if "serving" in line:
                        running.base_url = line.split(" at ")[1].split(" ")[0]
                await asyncio.sleep(0.02)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


class Load:
    """Requests without end, streamed and whole, new connections and kept ones."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.pools: list[str] = []
        self.failures: list[str] = []
        self._stopping = False

    async def run(self, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(number))

    def stop(self) -> None:
        self._stopping = True

    async def _client(self, number: int) -> None:
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        connector = aiohttp.TCPConnector(force_close=number % 4 == 0)
        async with aiohttp.ClientSession(connector=connector) as http:
            turn = 0
            while not self._stopping:
                turn += 1
                stream = (number + turn) % 2 == 0
                url = f"{self._base_url}/chat/completions"
                try:
                    async with http.post(url, json={**asked, "stream": stream}) as response:
                        told = await response.text()
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))
                    continue
                whole = told.endswith("data: [DONE]\n\n") if stream else '"usage"' in told
                if response.status != 200 or not whole or '"error"' in told:
                    self.failures.append(f"{response.status} {told[:300]}")
                self.pools.append(response.headers.get("steelyard-pool", ""))


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not happens():  # noqa: ASYNC110 - other processes tell nobody
            await asyncio.sleep(0.02)


async def wait_until(load: Load, name: str) -> None:
    """Until some of the last answers came from a pool."""
    await until(lambda: name in load.pools[-8:])


async def status(running: Process, asked: dict[str, Any]) -> int:
    """What a request gets."""
    url = f"{running.base_url}/chat/completions"
    async with aiohttp.ClientSession() as http, http.post(url, json=asked) as response:
        return response.status


async def test_no_request_fails_while_pools_come_and_go(tmp_path: Path) -> None:
    async with upstreams("old", "new", "late") as up:
        old, new, late = up["old"], up["new"], up["late"]
        async with gateway(tmp_path, pool(old)) as running:
            load = Load(running.base_url)
            working = asyncio.create_task(load.run(12))
            await wait_until(load, "old")
            # A cheaper one joins and takes the steps.
            running.configure(pool(old), pool(new, 0.1))
            assert await running.reload() == (0, f"{running.base_url}: added new\n")
            await wait_until(load, "new")
            # The old one leaves.
            running.configure(pool(new, 0.1))
            assert (await running.reload())[1].endswith("removed old\n")
            seen = len(load.pools)
            await until(lambda: not old.in_flight and len(load.pools) >= seen + 24)
            served = old.served
            # Prices and the address behind a pool change; what runs there ends there.
            moved = pool(late, 0.1).replace("pools.late", "pools.new")
            running.configure(moved)
            assert (await running.reload())[1].endswith("changed new\n")
            await until(lambda: late.served >= 24 and not new.in_flight)
            # And back, several times in a row.
            for _ in range(3):
                running.configure(pool(old), moved)
                assert (await running.reload())[0] == 0
                running.configure(moved)
                assert (await running.reload())[0] == 0
            load.stop()
            await working
            assert old.served >= served
            assert await running.stop() == 0
    assert load.failures == []
    assert len(load.pools) > 100


async def test_a_wrong_configuration_is_refused_in_one_line_and_the_old_one_stays(
    tmp_path: Path,
) -> None:
    async with upstreams("old") as up, gateway(tmp_path, pool(up["old"])) as running:
        for more, wrong, said in (
            ("", ["nonsense"], "not TOML"),
            ("", ['[pools.x]\nkind = "endpoint"\n'], "pools.x"),
            ("", [pool(up["old"]), '[pools.e]\nkind = "embedded"\nmodel_path = "no"\n'], "no"),
            ('api_keys_file = "missing"', [pool(up["old"])], "missing"),
            ('host = "127.0.0.2"', [pool(up["old"])], "restart"),
            ("", [pool(up["old"]), '[dashboard]\nplan = "plan.json"\n'], "dashboard"),
            ("", [pool(up["old"]), '[store]\npath = "other.db"\n'], "restart"),
        ):
            running.configure(*wrong, more=more)
            code, told = await running.reload()
            assert code == 2, told
            assert told.count("\n") == 1
            assert said in told
            assert "stays in force" in told
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert await status(running, asked) == 200
        running.configure(pool(up["old"]), more="max_body_bytes = 100")
        code, told = await running.reload_by_program("--json")
        assert (code, json.loads(told)["refused"]) == (0, "")
        assert await status(running, {**asked, "user": "u" * 100}) == 413
        assert await running.stop() == 0


def slow_server(folder: Path, name: str) -> str:
    """Tools that tell when they are being started, and fail when they are told to."""
    program = (
        "import pathlib, time\n"
        f"pathlib.Path({str(folder / name)!r}).touch()\n"
        f"while not pathlib.Path({str(folder / f'{name}-ends')!r}).exists():\n"
        "    time.sleep(0.02)\n"
    )
    command = json.dumps([sys.executable, "-c", program])
    return f'[pools.{name}]\nkind = "mcp"\ncommand = {command}\nsandbox = "off"\n'


async def test_who_asks_while_another_reload_runs_is_told_of_the_own_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcp", reason="the mcp extra is not installed")
    async with upstreams("old") as up, gateway(tmp_path, pool(up["old"])) as running:
        running.configure(pool(up["old"]), slow_server(tmp_path, "first"))
        running.process.send_signal(signal.SIGHUP)
        await until((tmp_path / "first").exists)
        running.configure(pool(up["old"]), slow_server(tmp_path, "second"))
        sent, kill = threading.Event(), os.kill

        def send(pid: int, sign: int) -> None:
            kill(pid, sign)
            sent.set()

        monkeypatch.setattr(os, "kill", send)
        asking = asyncio.create_task(running.reload())
        await until(sent.is_set)
        (tmp_path / "first-ends").touch()
        await until((tmp_path / "second").exists)
        (tmp_path / "second-ends").touch()
        code, told = await asking
        assert (code, "pool second" in told) == (2, True), told
        assert await running.stop() == 0


async def test_a_signal_alone_does_it_too(tmp_path: Path) -> None:
    async with upstreams("old", "new") as up, gateway(tmp_path, pool(up["old"])) as running:
        running.configure(pool(up["old"]), pool(up["new"]))
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: any("reloaded: added new" in line for line in running.lines))
        assert await running.stop() == 0


async def test_where_no_gateway_runs_there_is_nothing_to_reload(tmp_path: Path) -> None:
    process = Process(tmp_path, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    process.configure()
    code, told = await process.reload_by_program()
    assert code == 2
    assert "no gateway runs" in told


@pytest.mark.parametrize(("drain_s", "whole"), [(20, True), (1, False)])
async def test_a_stopped_gateway_finishes_streams_up_to_its_time(
    tmp_path: Path, drain_s: int, whole: bool
) -> None:
    async with upstreams("old", hold_s=0.5 if whole else 4.0) as up:
        async with gateway(tmp_path, pool(up["old"]), more=f"drain_s = {drain_s}") as running:
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            url = f"{running.base_url}/chat/completions"
            async with aiohttp.ClientSession() as http, http.post(url, json=asked) as response:
                told = (await response.content.readany()).decode()
                stopping = asyncio.create_task(running.stop())
                told += (await response.content.read()).decode()
            assert await stopping == 0
        assert told.endswith("data: [DONE]\n\n") is whole
        assert ("the gateway is stopping" in told) is not whole


async def test_a_gateway_that_is_about_to_stop_is_unready_and_serves_on(tmp_path: Path) -> None:
    async with (
        upstreams("old") as up,
        gateway(tmp_path, pool(up["old"]), more="unready_s = 5") as running,
        aiohttp.ClientSession() as http,
    ):
        ready_url = running.base_url.removesuffix("/v1") + "/readyz"
        async with http.get(ready_url) as response:
            assert (response.status, (await response.json())["stopping"]) == (200, False)
        stopping = asyncio.create_task(running.stop())
        await until(lambda: any("not ready any more" in line for line in running.lines))
        async with http.get(ready_url) as response:
            assert (response.status, (await response.json())["stopping"]) == (503, True)
        asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        # A new connection, as of one whom the load balancer has told nothing yet.
        async with (
            aiohttp.ClientSession() as late,
            late.post(f"{running.base_url}/chat/completions", json=asked) as response,
        ):
            assert response.status == 200
        assert await stopping == 0
