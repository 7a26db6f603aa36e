"""A process killed at every commit, between every two writes, loses nothing and repeats nothing."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.store.postgres_server import PostgresServer

from steelyard.domain.events import AttemptFinished, Event, StepRecorded, TaskFinished
from steelyard.ledger.ledger import Ledger
from steelyard.runtime.journal import Journal
from steelyard.store.event_store import iter_events

DRIVER = Path(__file__).with_name("crash_driver.py")
# Two processes share the points, to use two cores.
SHARES = 2
POSTGRES_EACH = 9


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def crashed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, int]]]:
    folder = tmp_path_factory.mktemp("crashes")
    # Every point in SQLite; in PostgreSQL, where each needs a database of its own, a sample.
    each, url = 1, []
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        each, url = POSTGRES_EACH, [server.url]
    drivers: list[subprocess.Popen[str]] = []
    for share in range(SHARES):
        (folder / str(share)).mkdir()
        drivers.append(
            subprocess.Popen(  # noqa: S603
                [
                    *(sys.executable, DRIVER, folder / str(share)),
                    *(str(share * each + 1), str(SHARES * each), *url),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    told: list[dict[str, int]] = []
    for share, driver in enumerate(drivers):
        lines = driver.communicate(timeout=280)[0].splitlines()
        assert driver.returncode == 0
        told += [{**json.loads(line), "share": share} for line in lines[1:]]
    return folder, told


def _points(crashed: tuple[Path, list[dict[str, int]]]) -> list[tuple[Path, int]]:
    folder, told = crashed
    return [(folder / str(one["share"]), one["at"]) for one in told]


def test_every_point_kills_and_every_task_ends(
    crashed: tuple[Path, list[dict[str, int]]],
) -> None:
    _, told = crashed
    assert len(told) > (110 if told[1]["at"] == told[0]["at"] + SHARES else 6)
    assert [one["ended"] for one in told] == [0] * len(told)
    # The last few points of the undisturbed run may come in another order, and not at all.
    assert sum(one["killed"] == 9 for one in told) > len(told) - 8


def test_no_step_is_lost_and_no_result_changes(
    crashed: tuple[Path, list[dict[str, int]]],
) -> None:
    for folder, at in _points(crashed):
        after = _after(folder, at)
        text = (folder / f"{at}.before").read_text(encoding="utf-8")
        before = [json.loads(body) for body in json.loads(text)]
        known = _results(before)
        finally_known = _results([json.loads(one) for one in _bodies(after)])
        assert known.items() <= finally_known.items(), at
        journal = Journal.of(event for event in after if getattr(event, "task_id", "t") == "t")
        assert journal.finished is not None
        assert journal.finished.status == "succeeded", journal.finished.error
        result = journal.finished.result
        assert (result["branches"], result["last"]) == ([30, 40], 71)
        assert result["drawn"] == journal.steps["0"].result
        assert sum(isinstance(event, TaskFinished) for event in after) == 1
        # Ten steps, each done and each recorded once.
        assert sorted(journal.steps) == sorted(finally_known)
        assert len(finally_known) == 10


def test_no_cost_is_counted_twice(crashed: tuple[Path, list[dict[str, int]]]) -> None:
    for folder, at in _points(crashed):
        after = _after(folder, at)
        ends = [event for event in after if isinstance(event, AttemptFinished)]
        assert len({(end.step_id, end.attempt) for end in ends}) == len(ends), at
        done = Counter(end.step_id for end in ends if end.outcome == "ok")
        assert set(done.values()) == {1}, at
        lost = [end for end in ends if end.outcome != "ok"]
        assert [end.cost_usd for end in lost] == [0.0] * len(lost)
        ledger = Ledger.of(after)
        paid_usd = math.fsum(end.cost_usd for end in ends)
        assert [task.cost_usd for task in ledger.tasks] == [paid_usd]


def test_every_run_of_a_tool_has_its_steps_own_key(
    crashed: tuple[Path, list[dict[str, int]]],
) -> None:
    repeated = 0
    for folder, at in _points(crashed):
        notes = (folder / f"{at}.txt").read_text(encoding="utf-8").splitlines()
        runs = [json.loads(line) for line in notes]
        asked = {(run["key"], run["number"]) for run in runs}
        assert len(asked) == len({key for key, _ in asked}) == 4, at
        repeated += len(runs) - len(asked)
    # At least once, and not much more: only what was running when the process was killed. A sample
    # of the points may hold none at which a tool was running.
    everywhere = crashed[1][1]["at"] == crashed[1][0]["at"] + SHARES
    assert int(everywhere) <= repeated < len(_points(crashed))


def _after(folder: Path, at: int) -> list[Event]:
    """The log in the end."""
    told = json.loads((folder / f"{at}.after").read_text(encoding="utf-8"))
    return list(iter_events(body.encode() for body in told))


def _results(events: list[dict[str, Any]]) -> dict[str, str]:
    """Path -> recorded result, of all steps that have one."""
    paths: dict[int, str] = {}
    found: dict[str, str] = {}
    for event in events:
        if event["type"] == "step_placed":
            paths[event["step"]["step_id"]] = event["step"]["path"]
        elif event["type"] == "step_recorded":
            found[event["path"]] = json.dumps(event["result"])
        elif event["type"] == "attempt_finished" and event["outcome"] == "ok":
            found[paths[event["step_id"]]] = json.dumps(event["result"])
    return found


def _bodies(events: list[Event]) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


def test_steps_outside_of_pools_are_recorded_once(
    crashed: tuple[Path, list[dict[str, int]]],
) -> None:
    for folder, at in _points(crashed):
        after = _after(folder, at)
        paths = Counter(one.path for one in after if isinstance(one, StepRecorded))
        assert set(paths.values()) == {1}, at
