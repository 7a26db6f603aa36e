"""The main job as a user runs it: one real demo, looked at from all sides."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steelyard.cli.report_sources import read_source
from steelyard.ledger.ledger import Ledger
from steelyard.perf.cost import attempt_usd
from steelyard.placement.policy import CheapestFeasible
from steelyard.placement.replay import replay
from steelyard.planner.plan import FleetPlan
from steelyard.store.sqlite_log import read_events
from steelyard.store.workload_file import read_workload

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

KEYS = {
    "tasks",
    "steps",
    "goodput_per_s",
    "slo_attainment",
    "cost_usd",
    "pools",
    "plan",
    "baselines",
    "simulation",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and JSON of one demo run."""
    folder = tmp_path_factory.mktemp("demo")
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "steelyard", "demo", "--json", "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return folder, json.loads(ran.stdout)


def test_the_json_tells_what_was_run_planned_and_simulated(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    _, told = demo
    assert set(told) >= KEYS
    assert told["tasks"] >= 20
    assert told["steps"] == 4 * told["tasks"]
    assert 0.0 < told["cost_usd"] < told["rent_usd"]
    assert {pool["name"] for pool in told["pools"]} == {"local-llm", "local-tools"}
    assert {baseline["name"] for baseline in told["baselines"]} >= {
        "all-gpu",
        "all-arm",
        "single-provider",
    }


def test_no_baseline_is_cheaper_than_the_plan(demo: tuple[Path, dict[str, Any]]) -> None:
    _, told = demo
    gap = 1.0 + told["plan"]["gap_frac"]
    for baseline in told["baselines"]:
        if baseline["usd_per_hour"] is not None:
            assert told["plan"]["usd_per_hour"] <= baseline["usd_per_hour"] * gap


def test_the_simulated_plan_keeps_what_was_planned(demo: tuple[Path, dict[str, Any]]) -> None:
    _, told = demo
    assert told["simulation"]["slo_attainment"] >= told["plan"]["slo_attainment"]


def test_every_live_decision_comes_out_the_same_on_the_replayed_log(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    folder, told = demo
    replayed = list(replay(read_events(folder / "events.db"), CheapestFeasible()))
    assert len(replayed) >= told["steps"]
    assert [one.step.key for one in replayed if not one.same] == []


def test_the_log_read_again_gives_the_same_ledger(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, told = demo
    ledger = Ledger.of(read_events(folder / "events.db"))
    assert ledger == Ledger.of(read_events(folder / "events.db"))
    assert ledger.cost_usd == told["cost_usd"]
    assert ledger.slo_attainment_frac == told["slo_attainment"]
    assert ledger.goodput_per_s == told["goodput_per_s"]


def test_every_recorded_cost_is_that_of_the_one_cost_function(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = demo
    ledger = Ledger.of(read_events(folder / "events.db"))
    for attempt in ledger.attempts:
        spec = ledger.pools[attempt.decision.pool]
        assert attempt.cost_usd == attempt_usd(spec, attempt.step, attempt.usage)


def test_steps_are_built_on_the_ones_before(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    workload = read_workload(folder / "workload.parquet")
    for task in workload.tasks:
        assert [step.parents for step in task.steps] == [(), (0,), (1,), (2,)]
        assert task.steps[1].common_prefix_tokens > 0
        assert task.steps[2].shared_prefix_tokens > task.steps[1].common_prefix_tokens


def _made(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("events.db", "plan.json", "simulation.json")]


def test_the_artefacts_can_be_read_again(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, told = demo
    plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=FleetPlan)
    assert plan.usd_per_hour == told["plan"]["usd_per_hour"]
    assert json.loads((folder / "simulation.json").read_bytes()) == told["simulation"]
    assert [one.sort for one in map(read_source, _made(folder))] == ["run", "plan", "simulation"]
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
