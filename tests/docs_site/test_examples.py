"""Every example in README and docs/: Python runs, TOML is taken, commands are commands."""

import ast
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.docs_site.blocks import ROOT, Block, blocks, blocks_of, commands, inline_commands, words
from tests.docs_site.conftest import Gateway
from typer.main import get_command

from steelyard.cli.app import app
from steelyard.cli.fleet_edits import FleetEdits, read_edits
from steelyard.cli.renting_file import read_renting
from steelyard.config.plan_settings import PlanSettings, load_plan_settings
from steelyard.config.settings import load_settings
from steelyard.domain.pool import PoolSpec

_ADDRESS = "http://127.0.0.1:8080/v1"
_A_POOL = '[pools.local]\nkind = "embedded"\n'


def _places(found: Iterable[tuple[str, ...]]) -> list[str]:
    return [one[0] for one in found]


PYTHON, TOML = blocks("python"), blocks("toml")
COMMANDS, INLINE = commands(), inline_commands()


@pytest.mark.parametrize("found", PYTHON, ids=_places(PYTHON))
def test_python_runs_where_it_can_and_parses_elsewhere(
    found: Block, gateway: Gateway, tmp_path: Path
) -> None:
    if found.mark == "parse":
        ast.parse(found.text)
        return
    program = tmp_path / "example.py"
    program.write_text(found.text.replace(_ADDRESS, gateway.base_url), encoding="utf-8")
    ended = subprocess.run(  # noqa: S603 - an example of ours
        [sys.executable, program], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    told = "runs by itself; else write <!-- example: parse --> before it"
    assert ended.returncode == 0, f"{found.place} {told}\n{ended.stderr}"


@pytest.mark.parametrize("found", TOML, ids=_places(TOML))
def test_toml_is_taken_by_who_reads_it(found: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(found.text, encoding="utf-8")
    table = tomllib.loads(found.text)
    pools = table.get("pools", {})
    if pools and all("kind" not in pool for pool in pools.values()):
        read_renting(file, tuple(_pool(name) for name in pools), {})
    elif table.keys() <= set(PlanSettings.__struct_fields__):
        load_plan_settings(file)
    elif table.keys() <= set(FleetEdits.__struct_fields__):
        read_edits(file.rename(tmp_path / "edits.toml").parent)
    else:
        # A page shows a part of a file; the whole has pools.
        file.write_text(found.text if pools else found.text + _A_POOL, encoding="utf-8")
        load_settings(file)


def _pool(name: str) -> PoolSpec:
    return PoolSpec(
        name=name.replace("*", "any"),
        provider="aws",
        region="r",
        arch="arm64",
        hardware="arm",
        offering="o",
        usd_per_hour=0.2,
        replicas=1,
    )


@pytest.mark.parametrize("found", COMMANDS, ids=_places(COMMANDS))
def test_a_command_in_a_block_has_only_options_that_there_are(found: tuple[str, str]) -> None:
    place, line = found
    arguments = [word for word in words(line) if word != "..."]
    _accept(place, arguments)


def _accept(place: str, arguments: list[str]) -> None:
    """Let the commands take a line apart, without running anything."""
    command: Any = get_command(app)
    context: Any = None
    name = "steelyard"
    while hasattr(command, "resolve_command"):
        # A group keeps what is not its own for its commands.
        context = command.make_context(name, arguments, parent=context)
        left = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, left)
        assert command is not None, place
    command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("found", INLINE, ids=_places(INLINE))
def test_a_command_in_running_text_is_one_with_options_that_there_are(
    found: tuple[str, str],
) -> None:
    place, line = found
    told = line.removeprefix("steelyard ").replace("\\|", "|").split()
    command: Any = get_command(app)
    for word in told:
        if word.startswith("-"):
            allowed = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
            assert word.split("=")[0] in allowed | {"--help", *_OF_PROGRAM}, f"{place}: {line}"
        elif hasattr(command, "commands"):
            # `keys create|show` names several.
            several = [command.commands.get(one) for one in word.split("|")]
            assert None not in several or not word.isalpha(), f"{place}: {line}"
            command = several[-1] or command


_OF_PROGRAM = ("--install-completion", "--show-completion", "--version")


def test_the_tutorial_leads_from_requests_to_a_plan_and_its_report(gateway: Gateway) -> None:
    tutorial = "docs/tutorial/first-plan.md"
    (agent,) = (block for block in blocks("python") if block.place.startswith(tutorial))
    program = gateway.folder / "my_agent.py"
    program.write_text(agent.text.replace(_ADDRESS, gateway.base_url), encoding="utf-8")
    _run(gateway.folder, sys.executable, str(program))
    shown = [words(line) for place, line in commands() if place.startswith(tutorial)]
    wanted = (["workload", "convert", "steelyard.db"], ["plan"], ["simulate"], ["report"])
    for begin in wanted:
        arguments = next(one for one in shown if one[: len(begin)] == begin)
        said = _run(gateway.folder, sys.executable, "-m", "steelyard", *arguments)
        if begin == ["simulate"]:
            (gateway.folder / "simulation.json").write_text(said, encoding="utf-8")
        if begin[0] in {"workload", "plan"}:
            missing = _shape(_shown_after(tutorial, " ".join(begin))) - _shape(said)
            assert missing == set(), f"{tutorial} shows what is not printed any more"
    assert json.loads((gateway.folder / "plan.json").read_text(encoding="utf-8"))
    assert "<html" in (gateway.folder / "report.html").read_text(encoding="utf-8")


def _shown_after(page: str, command: str) -> str:
    """The block after the one with a command: what it printed when the page was written."""
    found = blocks_of(page, (ROOT / page).read_text(encoding="utf-8"))
    at = next(n for n, block in enumerate(found) if f"steelyard {command}" in block.text)
    return found[at + 1].text


def _shape(said: str) -> set[str]:
    """Titles, headings of tables and names of their rows: what does not change with figures."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in said.splitlines() if line.strip()]
    rows = {cells[0] for cells in lines if len(cells) > 1}
    heads = {" | ".join(cells) for cells in lines if not re.search(r"\d", "".join(cells))}
    # Which provider is the cheapest by itself depends on the demand.
    return {row for row in rows | heads if not row.startswith("only ")}


def _run(folder: Path, *command: str) -> str:
    ended = subprocess.run(  # noqa: S603 - our own program
        command, check=False, capture_output=True, text=True, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_gateway_with_a_request_log_writes_a_line_for_each_request(gateway: Gateway) -> None:
    ask = (
        "import urllib.request, sys; urllib.request.urlopen(sys.argv[1] + '/models').read()",
        gateway.base_url,
    )
    _run(gateway.folder, sys.executable, "-c", *ask)
    until_s = time.monotonic() + 10.0
    lines: list[dict[str, Any]] = []
    while not lines and time.monotonic() < until_s:
        lines = [json.loads(line) for line in [*gateway.said] if line.startswith("{")]
    assert {"method", "path", "status", "duration_s", "task_id", "pool"} <= lines[0].keys()


def test_a_command_with_an_option_that_there_is_not_is_found() -> None:
    with pytest.raises(Exception, match="--nope"):
        _accept("here", ["plan", "--nope"])


def test_a_mark_holds_for_the_next_block_alone() -> None:
    text = "<!-- example: parse -->\n```python\na\n```\n\n```python\nb\n```\n"
    assert [(one.text, one.mark) for one in blocks_of("x", text)] == [("a\n", "parse"), ("b\n", "")]
