"""Whatever a user gets wrong ends with one line that says what and where, and exit code 2."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import steelyard
from steelyard.cli import app

TOOLS = '[pools.t]\nkind = "tools"\nslots = 1\n'
ENGINE = '[pools.e]\nkind = "embedded"\n'
ENDPOINT = (
    '[pools.v]\nkind = "endpoint"\nbase_urls = ["http://127.0.0.1:9/v1"]\n'
    'models = ["m"]\nusd_per_hour = 1.0\n'
)
# Makes an installed package look as if it were missing, in child processes, too: Python imports
# `sitecustomize` from PYTHONPATH before anything else.
_HIDE = """
import sys

# As if they were not installed.
sys.modules["openvino_genai"] = sys.modules["xllamacpp"] = None
"""


def _run(
    *arguments: str, folder: Path, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "steelyard", *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def _up(folder: Path, text: str, environment: dict[str, str] | None = None) -> str:
    """Last line that `steelyard up` says with this configuration, which is wrong."""
    (folder / "steelyard.toml").write_text(text, encoding="utf-8")
    return _one_line(_run("up", folder=folder, environment=environment))


def _one_line(ran: "subprocess.CompletedProcess[str]") -> str:
    """The line that tells of the failure; lines before it tell of progress."""
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    *progress, last = ran.stderr.splitlines()
    assert all(line.startswith("steelyard: starting") for line in progress), progress
    assert last.startswith("steelyard: ")
    return last.removeprefix("steelyard: ")


def test_help_names_the_commands(tmp_path: Path) -> None:
    ran = _run("--help", folder=tmp_path)
    assert ran.returncode == 0
    for command in ("demo", "up", "plan", "simulate"):
        assert f"\n  {command} " in ran.stdout


def test_the_version_is_printed(tmp_path: Path) -> None:
    ran = _run("--version", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, f"steelyard {steelyard.__version__}\n")


def test_the_installed_program_is_ours() -> None:
    (script,) = entry_points(group="console_scripts", name="steelyard")
    assert script.load() is app.main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fly"], "No such command 'fly'"),
        (["up", "--prot", "1"], "No such option: --prot"),
        (["simulate"], "Missing option '--"),
        (["plan", "--growth", "much"], "Invalid value for '--growth'"),
    ],
)
def test_a_wrong_command_line_is_told_with_exit_code_2(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    ran = _run(*arguments, folder=tmp_path)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["up", "--config", "gone.toml"], "configuration gone.toml does not exist; copy"),
        (["demo", "--config", "gone.toml"], "configuration gone.toml does not exist; copy"),
        (["plan", "--workload", "gone.parquet"], "workload gone.parquet does not exist"),
        (["plan", "--workload", "notes.txt"], "workload notes.txt cannot be read as Parquet"),
        (["plan", "--demand", "notes.txt"], "notes.txt: JSON is malformed"),
        (
            ["simulate", "--workload", "gone.jsonl", "--plan", "p.json"],
            "workload gone.jsonl does not exist",
        ),
        (["demo", "--out", "notes.txt"], "--out notes.txt cannot be made"),
    ],
)
def test_a_wrong_file_is_named(arguments: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes, nothing else", encoding="utf-8")
    assert told in _one_line(_run(*arguments, folder=tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gateway\n", "configuration steelyard.toml is not TOML"),
        (TOOLS + "slot = 2\n", "unknown key pools.t.slot; did you mean slots?"),
        (TOOLS + '[policy]\nname = "cheapest"\n', "policy 'cheapest' is unknown; did you mean"),
        (TOOLS + '[gateway]\nhost = "0.0.0.0"\n', "api_key"),
        (TOOLS + '[gateway]\napi_keys_file = "keys"\n', "gateway.api_keys_file keys cannot be"),
        (TOOLS + 'offering = "aws/m7i.lage"\n', "offering 'aws/m7i.lage' is not in the catalogue"),
        (ENGINE + 'model_path = "gone.gguf"\n', "Cannot read the model gone.gguf"),
        (
            ENDPOINT + 'api_key_env = "NO_SUCH_KEY"\n',
            "pools.v.api_key_env names the environment variable NO_SUCH_KEY, which is not set",
        ),
        (TOOLS + '[store]\npath = "nowhere/log.db"\n', "event log nowhere/log.db cannot be opened"),
    ],
)
def test_a_wrong_configuration_is_named_by_key_and_value(
    text: str, told: str, tmp_path: Path
) -> None:
    free = text if "[gateway]" in text else text + "[gateway]\nport = 0\n"
    assert told in _up(tmp_path, free)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("no model", encoding="utf-8")
    told = _up(tmp_path, "[gateway]\nport = 0\n" + ENGINE + 'model_path = "notes.gguf"\n')
    assert "notes.gguf is not a GGUF file" in told


@pytest.fixture
def port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def test_a_port_in_use_is_named(port: int, tmp_path: Path) -> None:
    told = _up(tmp_path, TOOLS + f"[gateway]\nport = {port}\n")
    assert f"port {port} is in use; stop the other program" in told


def test_the_database_of_another_program_is_named(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "steelyard.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    told = _up(tmp_path, TOOLS + "[gateway]\nport = 0\n")
    assert "steelyard.db is not a Steelyard event log" in told


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--deadline", "5parsecs", "is no duration"), ("--budget", "-1", "--budget is -1.0 USD")],
)
def test_a_wrong_limit_of_a_task_is_named_before_anything_is_started(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    program = "from steelyard import task\n\n@task()\nasync def idle(ctx):\n    pass\n"
    (tmp_path / "agent.py").write_text(program, encoding="utf-8")
    ran = _run("run", "agent.py:idle", option, value, folder=tmp_path)
    assert said in _one_line(ran)
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "steelyard.db").exists()


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(_HIDE, encoding="utf-8")
    told = _up(tmp_path, ENGINE + "[gateway]\nport = 0\n", {"PYTHONPATH": str(hide)})
    assert "needs openvino-genai" in told
    assert "pip install 'steelyard[engine]'" in told


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ('plan = "gone.json"', "gone.json cannot be read: No such file or directory"),
        ('plan = "notes.txt"', "notes.txt is no plan: "),
        ('plan_settings = "gone.toml"', "gone.toml does not exist"),
    ],
)
def test_up_refuses_what_the_dashboard_could_not_show(
    section: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no JSON", encoding="utf-8")
    assert told in _up(tmp_path, f'[pools.local]\nkind = "embedded"\n[dashboard]\n{section}\n')
