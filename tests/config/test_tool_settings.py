"""Settings of tool pools and MCP pools that would give tools too much are refused."""

from pathlib import Path

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_settings import McpPoolSettings, ToolPoolSettings
from steelyard.config.pool_specs import pool_spec
from steelyard.config.settings import Settings, load_settings
from steelyard.errors import ConfigError


def load(folder: Path, text: str) -> Settings:
    path = folder / "steelyard.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_tools_are_confined_unless_that_is_turned_off(tmp_path: Path) -> None:
    pool = load(tmp_path, '[pools.a]\nkind = "tools"\npython_paths = ["tools"]\n').pools["a"]
    assert isinstance(pool, ToolPoolSettings)
    assert pool.sandbox == "auto"
    assert pool.python_paths == (tmp_path / "tools",)


@pytest.mark.parametrize(
    "pool",
    ['kind = "tools"\npython_paths = ["."]', 'kind = "mcp"\ncommand = ["x"]\nreadable = ["."]'],
)
def test_refuses_to_show_tools_the_event_log(tmp_path: Path, pool: str) -> None:
    with pytest.raises(ConfigError, match=r"where tools would read store\.path"):
        load(tmp_path, f"[pools.a]\n{pool}\n")
    load(tmp_path, f'[pools.a]\n{pool}\nsandbox = "off"\n')


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ('kind = "tools"\nsandbox = "none"', "sandbox"),
        ('kind = "tools"\nprocesses = 0', "processes is 0"),
        ('kind = "mcp"', "either command or url"),
        ('kind = "mcp"\ncommand = ["x"]\nurl = "http://y"', "either command or url"),
        ('kind = "mcp"\nurl = "ftp://y"', "must start with http"),
        ('kind = "mcp"\nurl = "http://y"\ntimeout_s = 0', "timeout_s is 0"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, pool: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, f"[pools.a]\n{pool}\n")


def test_an_mcp_pool_runs_its_own_tools_and_no_others() -> None:
    catalog = load_catalog()
    tools = pool_spec("plain", ToolPoolSettings(), catalog)
    for settings in (McpPoolSettings(url="http://x"), McpPoolSettings(command=("x",))):
        docs = pool_spec("docs", settings, catalog)
        assert docs.runs_tool("mcp:docs/search")
        assert not docs.runs_tool("mcp:docs2/search")
        assert not docs.runs_tool("module:function")
    assert tools.runs_tool("module:function")
    assert not tools.runs_tool("mcp:docs/search")
