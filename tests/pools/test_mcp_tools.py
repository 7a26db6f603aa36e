"""Tools of real MCP servers, confined and not, over stdio and HTTP."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import (
    ConfigError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    SandboxUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.mcp_tools import DEADLINE_KEY, TASK_KEY, McpServer, McpToolBackend
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox

MIB = 1024 * 1024
TOOLS = str(Path(__file__).parent / "sandbox" / "tools")
COMMAND = (sys.executable, f"{TOOLS}/mcp_server.py")


@pytest.fixture(scope="module")
def confined() -> McpServer:
    limits = SandboxLimits(memory_bytes=512 * MIB, cores=2.0)
    try:
        sandbox = asyncio.run(find_sandbox("auto", limits, (TOOLS,)))
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    return McpServer(command=COMMAND, sandbox=sandbox, environment={"SECRET": "sesame"})


@pytest.fixture
async def stdio(confined: McpServer) -> AsyncIterator[McpToolBackend]:
    backend = McpToolBackend("docs", confined, slots=2)
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture
async def http() -> AsyncIterator[McpToolBackend]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _listening(port)
        backend = McpToolBackend("docs", McpServer(url=f"http://127.0.0.1:{port}/mcp"))
        await backend.start()
        yield backend
        await backend.close()
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


async def call(
    backend: McpToolBackend, tool: str, timeout_s: float = 20.0, **arguments: Any
) -> ToolOutcome:
    request = ToolRequest(
        tool=f"mcp:docs/{tool}", arguments=arguments, timeout_s=timeout_s, task_id="task-7"
    )
    return await backend.run(request)


async def test_calls_a_tool_and_says_what_is_not_measured(stdio: McpToolBackend) -> None:
    outcome = await call(stdio, "add", a=2, b=3)
    assert outcome.result == {"result": 5}
    assert not outcome.measured
    assert outcome.cpu_s == outcome.wall_s > 0


async def test_calls_a_tool_over_http_whose_cpu_is_not_ours(http: McpToolBackend) -> None:
    outcome = await call(http, "add", a=2, b=3)
    assert outcome.result == {"result": 5}
    assert outcome.cpu_s == 0.0
    with pytest.raises(ToolFailedError, match="too odd"):
        await call(http, "fail", message="too odd")
    meta = (await call(http, "told")).result
    assert meta[TASK_KEY] == "task-7"


async def test_tells_the_server_the_task_and_its_deadline(stdio: McpToolBackend) -> None:
    meta = (await call(stdio, "told", timeout_s=30.0)).result
    assert meta[TASK_KEY] == "task-7"
    left_s = (datetime.fromisoformat(meta[DEADLINE_KEY]) - datetime.now(UTC)).total_seconds()
    assert 0 < left_s <= 30


async def test_failures_are_named_and_wrong_tools_and_arguments_rejected(
    stdio: McpToolBackend,
) -> None:
    with pytest.raises(ToolFailedError, match="mcp:docs/fail failed: .*too odd"):
        await call(stdio, "fail", message="too odd")
    for tool in ("mcp:other/add", "add", "mcp:docs/", "sample_tools:add"):
        with pytest.raises(PoolRejectedError, match="runs no tool"):
            await stdio.run(ToolRequest(tool=tool, arguments={}))
    with pytest.raises((PoolRejectedError, ToolFailedError)):
        await call(stdio, "no_such_tool")
    with pytest.raises((PoolRejectedError, ToolFailedError), match="add"):
        await call(stdio, "add", a="x")


async def test_only_listed_tools_may_be_called(confined: McpServer) -> None:
    backend = McpToolBackend("docs", confined, tools=("add",))
    await backend.start()
    try:
        with pytest.raises(PoolRejectedError, match="not among pools.docs.tools: add"):
            await call(backend, "secret_tool")
    finally:
        await backend.close()


async def test_a_listed_tool_that_is_not_offered_is_a_configuration_error(
    confined: McpServer,
) -> None:
    backend = McpToolBackend("docs", confined, tools=("add", "subtract"))
    with pytest.raises(ConfigError, match="names subtract, which .* it offers add, fail"):
        await backend.start()


async def test_a_server_is_confined(stdio: McpToolBackend, tmp_path: Path) -> None:
    secret = tmp_path / "events.db"
    secret.write_text("the log", encoding="utf-8")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        seen = (await call(stdio, "surroundings", path=str(secret), port=port)).result
    assert seen["user_id"] != 0
    assert seen["seen"] == "FileNotFoundError"
    assert seen["sent"] == "ConnectionRefusedError"
    assert "SECRET" not in seen["variables"]


async def test_a_server_that_hangs_is_killed_and_comes_back(stdio: McpToolBackend) -> None:
    with pytest.raises(PoolTimeoutError, match=r"longer than 0\.5 s"):
        await call(stdio, "hang", timeout_s=0.5)
    assert (await call(stdio, "add", a=1, b=2)).result == {"result": 3}


async def test_a_server_that_dies_is_unavailable_and_comes_back(stdio: McpToolBackend) -> None:
    with pytest.raises(PoolUnavailableError, match="is gone; retry"):
        await call(stdio, "leave")
    assert (await call(stdio, "add", a=1, b=2)).result == {"result": 3}


async def test_a_server_that_writes_a_line_without_end_is_dropped(stdio: McpToolBackend) -> None:
    with pytest.raises((PoolUnavailableError, PoolProtocolError)):
        await call(stdio, "print_much", size_bytes=80 * MIB)
    assert (await call(stdio, "add", a=1, b=2)).result == {"result": 3}


async def test_cancelling_the_caller_leaves_the_session_usable(stdio: McpToolBackend) -> None:
    first = asyncio.create_task(call(stdio, "hang"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await call(stdio, "add", a=1, b=2)).result == {"result": 3}


async def test_closing_fails_calls_that_run(stdio: McpToolBackend) -> None:
    await call(stdio, "add", a=1, b=2)
    running = asyncio.create_task(call(stdio, "hang"))
    await asyncio.sleep(0)
    await stdio.close()
    with pytest.raises(PoolUnavailableError):
        await running
    with pytest.raises(PoolUnavailableError, match="not started"):
        await call(stdio, "add", a=1, b=2)


@pytest.mark.parametrize(
    "server",
    [
        McpServer(command=("/no/such/program",)),
        McpServer(command=(sys.executable, "-c", "raise SystemExit(3)"), environment=os.environ),
        McpServer(url="http://127.0.0.1:9/mcp"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_unavailable(server: McpServer) -> None:
    backend = McpToolBackend("docs", server, timeout_s=10.0)
    with pytest.raises(PoolUnavailableError, match="of pool docs"):
        await backend.start()
    await backend.close()
