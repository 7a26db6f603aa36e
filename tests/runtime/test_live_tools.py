"""Tool pools from a configuration file to results: confined Python tools and an MCP server."""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.settings import load_settings
from steelyard.domain.task import Step, ToolCall
from steelyard.errors import ConfigError, SandboxUnavailableError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import ToolRequest
from steelyard.pools.mcp_tools import IDEMPOTENCY_KEY, TASK_KEY
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import NamedTool, task
from steelyard.runtime.journal import Journal
from steelyard.runtime.live import live_fleet
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.worker import Worker
from steelyard.store.sqlite_log import SqliteEventLog

TOOLS = Path(__file__).parents[1] / "pools" / "sandbox" / "tools"
CONFIG = """
[pools.python]
kind = "tools"
slots = 1
python_paths = ["tools"]

[pools.docs]
kind = "mcp"
command = ["{python}", "{server}"]
readable = ["tools"]
tools = ["add"]
"""


async def test_each_tool_runs_confined_in_its_own_pool(tmp_path: Path) -> None:
    try:
        await find_sandbox("auto", SandboxLimits())
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    shutil.copytree(TOOLS, tmp_path / "tools")
    server = tmp_path / "tools" / "mcp_server.py"
    config = tmp_path / "steelyard.toml"
    config.write_text(CONFIG.format(python=sys.executable, server=server), encoding="utf-8")
    settings = load_settings(config)
    with SqliteEventLog(settings.store.path) as log:
        fleet = live_fleet(settings, load_catalog(), CheapestFeasible(), log)
        async with fleet as dispatcher:
            for number, (tool, result) in enumerate(
                (("hostile_tools:add", 5), ("mcp:docs/add", {"result": 5}))
            ):
                step = Step(
                    task_id=f"t{number}",
                    step_id=0,
                    agent="a",
                    name="add",
                    call=ToolCall(tool=tool),
                )
                request = ToolRequest(tool=tool, arguments={"a": 2, "b": 3})
                decision, outcome, _ = await dispatcher.serve_tool(step, request)
                assert outcome.result == result
                assert decision.pool == ("docs" if tool.startswith("mcp:") else "python")


@task(name="asks_server")
async def asks_server(ctx: TaskContext) -> list[Any]:
    total = await ctx.tool("mcp:docs/add", a=2, b=3)
    return [total, await ctx.tool(NamedTool("mcp:docs/told", timeout_s=20.0))]


async def test_a_task_calls_tools_of_an_mcp_server_by_name(tmp_path: Path) -> None:
    server = TOOLS / "mcp_server.py"
    config = tmp_path / "steelyard.toml"
    text = '[pools.docs]\nkind = "mcp"\nsandbox = "off"\ncommand = ["{}", "{}"]\n'
    config.write_text(text.format(sys.executable, server), encoding="utf-8")
    settings = load_settings(config)
    with SqliteEventLog(settings.store.path) as store:
        async with live_fleet(settings, load_catalog(), CheapestFeasible(), store) as dispatcher:
            worker = Worker(store, dispatcher, (ScriptedLlmPool(), "none"), (asks_server,))
            async with worker.working():
                await worker.submit(asks_server, "t", TaskLimits(), {})
                ended = await asyncio.wait_for(worker.result("t"), 30)
        journal = Journal.of(store.journal("t").result())
    total, told = ended.result
    assert total == {"result": 5}
    assert told[TASK_KEY] == "t"
    assert told[IDEMPOTENCY_KEY] == "t/1"
    assert [step.name for step in journal.in_order()] == ["add", "told"]


def test_a_tool_without_a_pool_or_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="mcp:POOL/TOOL"):
        NamedTool("search")
