"""`steelyard replan`: from the ledger's demand to a plan in force."""

import json
import time
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Run
from tests.cli.test_workload import PLAN_POOLS

from steelyard.cli.fleet_file import read_fleet
from steelyard.config.catalog_table import load_catalog
from steelyard.domain.events import TaskSubmitted
from steelyard.placement.baselines import policy_named
from steelyard.sim import simulate
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.store.workload_file import read_workload

MODEL = "qwen2.5-0.5b"


@pytest.fixture
def log(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of tasks that ended just now; its events come from the simulator."""
    monkeypatch.chdir(tmp_path)
    pools = json.dumps(PLAN_POOLS).replace('"m"', f'"{MODEL}"')
    Path("fleet.json").write_text(pools, encoding="utf-8")
    ran = run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "12", "--rate", "0.5",
        "--model", MODEL, "--out", "w.parquet",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    specs = read_fleet(Path("fleet.json"), load_catalog()).pools
    made = simulate(read_workload(Path("w.parquet")), specs, policy_named("cheapest_feasible"), 1)
    begun_s = time.time() - made.events[-1].t_s
    with SqliteEventLog(tmp_path / "events.db") as store:
        for event in made.events:
            moved = msgspec.structs.replace(event, t_s=event.t_s + begun_s)
            if isinstance(moved, TaskSubmitted):
                moved = msgspec.structs.replace(moved, deadline_s=None)
            store.append(moved)
        store.durable().result()
    return tmp_path / "events.db"


def test_the_first_plan_is_shown_and_put_in_force_with_yes_alone(log: Path, run: Run) -> None:
    asked = ("replan", "--store", str(log), "--once", "--window", "2h")
    ran = run(*asked)
    assert ran.code == 0, ran.err
    assert "nothing was changed" in ran.out
    assert not Path("plan.json").exists()
    ran = run(*asked, "--yes", "--json")
    told = json.loads(ran.out)
    assert (told["change"], told["tasks"], told["serves"]) == (True, 12, None)
    plan = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert plan["rent_usd_per_hour"] == told["planned_usd_per_hour"]
    told = json.loads(run(*asked, "--yes", "--json").out)
    assert told["changes"] == []
    assert (told["change"], told["serves"]) == (False, True)


def test_an_empty_window_changes_nothing(log: Path, run: Run) -> None:
    ran = run("replan", "--store", str(log), "--once", "--window", "1ms")
    assert ran.code == 0
    assert "no task came" in ran.err
    assert not Path("plan.json").exists()


def test_a_loop_without_a_pause_is_refused(log: Path, run: Run) -> None:
    ran = run("replan", "--store", str(log), "--every", "0s")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "--every is 0 s" in ran.err
