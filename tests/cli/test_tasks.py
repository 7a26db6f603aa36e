"""`steelyard run` and `steelyard tasks`, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.store.postgres_server import PostgresServer
from typer.testing import CliRunner

from steelyard.cli.app import app
from steelyard.cli.limits import seconds
from steelyard.domain.events import SignalSent, TaskRetried, TaskSubmitted
from steelyard.errors import ConfigError, StoreError, TaskNotFoundError
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.store.tasks import Submission

AGENT = """
import steelyard

@steelyard.tool()
def double(number: int, key: steelyard.IdempotencyKey = steelyard.NO_KEY) -> list:
    return [2 * number, key]

@steelyard.task(name="doubler")
async def run_it(ctx, number: int):
    return await ctx.tool(double, number)
"""
CONFIG = """
[store]
path = "tasks.db"

[pools.tools]
kind = "tools"
slots = 1
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "tasks.db"
    with SqliteEventLog(path) as log:
        for name in ("one", "two"):
            event = TaskSubmitted(t_s=1.0, task_id=name, agent="a", arguments={"x": 1})
            log.submit(Submission(event=event)).result()
    return str(path)


def _call(*arguments: str) -> str:
    ran = CliRunner().invoke(app, ["tasks", *arguments])
    if ran.exception is not None:
        raise ran.exception
    return ran.stdout


def test_runs_an_agent_on_a_database_and_shows_its_steps(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    tmp_path.chmod(0o755)
    url = postgres.new_database_of("guarded", "s3cret")
    store = f'[store]\nurl = "{url}"\npassword_env = "DB_PASSWORD"\n'
    (tmp_path / "agents.py").write_text(AGENT, encoding="utf-8")
    (tmp_path / "steelyard.toml").write_text(store + CONFIG.partition("\n\n")[2], encoding="utf-8")
    command = [sys.executable, "-m", "steelyard"]
    ran = subprocess.run(  # noqa: S603
        [
            *(*command, "run", "agents.py:doubler", "--input", '{"number": 4}'),
            *("--id", "t1", "--config", "steelyard.toml", "--json"),
        ],
        cwd=tmp_path,
        env={**os.environ, "DB_PASSWORD": "s3cret"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert json.loads(ran.stdout)["result"] == [8, "t1/0"]
    assert "s3cret" not in ran.stderr
    shown = subprocess.run(  # noqa: S603
        [*command, "tasks", "show", "t1", "--store", url, "--json"],
        env={**os.environ, "PGPASSWORD": "s3cret"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout)["task"]["state"] == "succeeded"


def test_runs_an_agent_of_a_file_and_shows_its_steps(tmp_path: Path) -> None:
    # Tools run as another user in their sandbox, where this one is root.
    tmp_path.chmod(0o755)
    (tmp_path / "agents.py").write_text(AGENT, encoding="utf-8")
    (tmp_path / "steelyard.toml").write_text(CONFIG, encoding="utf-8")
    ran = subprocess.run(  # noqa: S603
        [
            *(sys.executable, "-m", "steelyard", "run", "agents.py:doubler"),
            *("--input", '{"number": 4}', "--deadline", "60s", "--budget", "0.01"),
            *("--id", "t1", "--config", "steelyard.toml", "--json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert json.loads(ran.stdout)["result"] == [8, "t1/0"]
    shown = json.loads(_call("show", "t1", "--store", str(tmp_path / "tasks.db"), "--json"))
    assert shown["task"]["state"] == "succeeded"
    assert [step["name"] for step in shown["steps"]] == ["double"]
    assert shown["step_costs_usd"] == {"0": shown["cost_usd"]}
    assert f"{shown['cost_usd']:.8f}" in _call("show", "t1", "--store", str(tmp_path / "tasks.db"))


def test_lists_tasks_by_state(store: str) -> None:
    _call("cancel", "one", "--store", store)
    lines = _call("list", "--store", store, "--state", "cancelled", "--json").splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == ["one"]
    assert "queued" in _call("list", "--store", store)


def test_watching_an_ended_task_prints_what_it_did(store: str) -> None:
    _call("cancel", "one", "--store", store)
    lines = _call("watch", "one", "--store", store, "--json").splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds == ["task_submitted", "cancel_requested", "task_finished"]


def test_a_signal_is_in_the_log_when_the_command_returns(store: str) -> None:
    _call("signal", "two", "approve", '{"by": "me"}', "--store", store)
    with SqliteEventLog(Path(store)) as log:
        sent = log.journal("two").result()[-1]
    assert isinstance(sent, SignalSent)
    assert (sent.name, sent.value) == ("approve", {"by": "me"})


def test_a_failed_task_goes_on_with_new_limits(store: str) -> None:
    with pytest.raises(ConfigError, match="task one has not ended"):
        _call("retry", "one", "--store", store)
    _call("cancel", "one", "--store", store)
    told = _call("retry", "one", "--deadline", "60s", "--budget", "0.5", "--store", store)
    assert "one: queued, with 0 steps done" in told
    with SqliteEventLog(Path(store)) as log:
        retried = log.journal("one").result()[-1]
        assert log.tasks(task_id="one").result()[0].state == "queued"
    assert isinstance(retried, TaskRetried)
    assert retried.deadline_s == pytest.approx(retried.t_s + 60.0)
    assert retried.budget_usd == 0.5


def test_an_ended_task_is_submitted_again_with_its_arguments(store: str) -> None:
    with pytest.raises(ConfigError, match="task one is queued"):
        _call("retry", "one", "--from-start", "--store", store)
    _call("cancel", "one", "--store", store)
    _call("retry", "one", "--from-start", "--id", "again", "--store", store)
    with SqliteEventLog(Path(store)) as log:
        submitted = log.journal("again").result()[0]
    assert isinstance(submitted, TaskSubmitted)
    assert (submitted.agent, submitted.arguments) == ("a", {"x": 1})


def test_what_is_not_there_is_named(store: str, tmp_path: Path) -> None:
    with pytest.raises(TaskNotFoundError, match="task nix is not in"):
        _call("show", "nix", "--store", store)
    with pytest.raises(StoreError, match=r"gone\.db does not exist"):
        _call("list", "--store", str(tmp_path / "gone.db"))
    assert not (tmp_path / "gone.db").exists()


def test_durations_need_a_known_unit() -> None:
    assert seconds("--every", "2h") == 7200.0
    with pytest.raises(ConfigError, match="5 minutes"):
        seconds("--every", "5 minutes")


def test_an_unknown_state_is_refused_with_those_there_are(store: str) -> None:
    with pytest.raises(ConfigError, match="'done' is no state; take one of queued, running"):
        _call("list", "--store", store, "--state", "done")


def test_an_ended_task_takes_no_signal(store: str) -> None:
    _call("cancel", "one", "--store", store)
    with pytest.raises(ConfigError, match=r"task one has ended \(cancelled\)"):
        _call("signal", "one", "go", "--store", store)


def _run(folder: Path, text: str, *options: str) -> None:
    file = folder / f"agent_{abs(hash(text))}.py"
    file.write_text(text, encoding="utf-8")
    agent = "" if "--id" in options else ":run_it"
    ran = CliRunner().invoke(app, ["run", f"{file}{agent}", *options])
    assert ran.exception is not None
    raise ran.exception


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("def x(", (), "SyntaxError: .* was never closed"),
        ("x = 1\nimport nothing_like_it", (), r"No module named 'nothing_like_it' \(line 2\)"),
        (AGENT, ("--input", '{"number": 1, "n": 1}'), "does not suit agent doubler: .*'n'"),
        (AGENT, ("--input", "{}"), "does not suit agent doubler: missing .*'number'"),
        (AGENT, ("--id", "t"), "names no agent, so that there is no task"),
        (AGENT, ("--input", '{"number": 1}', "--lease", "1ms"), "take at least 0.5 s"),
    ],
)
@pytest.mark.usefixtures("_clean_path")
def test_what_cannot_run_is_told_before_there_is_a_task(
    tmp_path: Path, text: str, options: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        _run(tmp_path, text, *options)


@pytest.fixture
def _clean_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
