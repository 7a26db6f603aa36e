"""Tool pools from a configuration file to results: confined Python tools and an MCP server."""

import shutil
import sys
from pathlib import Path

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.settings import load_settings
from steelyard.domain.task import Step, ToolCall
from steelyard.errors import SandboxUnavailableError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import ToolRequest
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox
from steelyard.runtime.live import live_fleet
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
