"""`--json` is everywhere, and is one JSON object where it is no stream."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from steelyard.cli.app import app
from steelyard.domain.events import TaskSubmitted
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.store.tasks import Submission

Run = Callable[..., Any]


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, one in command.commands.items():
        yield from _commands(one, f"{path} {name}")


def test_every_command_takes_json() -> None:
    found = list(_commands(get_command(app), "steelyard"))
    assert len(found) > 25
    without = [
        path for path, one in found if not any("--json" in option.opts for option in one.params)
    ]
    assert without == []


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "tasks.db"
    with SqliteEventLog(path) as log:
        event = TaskSubmitted(t_s=1.0, task_id="one", agent="a", arguments={"x": 1})
        log.submit(Submission(event=event)).result()
    return str(path)


def test_what_was_done_to_a_task_is_told_as_json(run: Run, store: str) -> None:
    def told(*arguments: str) -> Any:
        ran = run("tasks", *arguments, "--store", store, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    assert told("signal", "one", "go", "1") == {"task_id": "one", "signal": "go"}
    assert told("cancel", "one") == {"task_id": "one", "cancelled": True}
    assert told("cancel", "one") == {"task_id": "one", "cancelled": False}
    assert told("retry", "one") == {"task_id": "one", "agent": "a", "steps_done": 0}
    assert told("cancel", "one")["cancelled"]
    anew = told("retry", "one", "--from-start", "--id", "two")
    assert anew == {"task_id": "two", "agent": "a", "steps_done": 0}


def test_exported_spans_are_counted_as_json(run: Run, store: str, tmp_path: Path) -> None:
    to = str(tmp_path / "spans.json")
    ran = run("traces", "export", store, "--to", to, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == {"spans": 0, "to": to}
