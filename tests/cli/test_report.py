"""`steelyard report` of a recorded run, a plan, a simulation, and of wrong input."""

import json
import re
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_workload import PLAN_POOLS

from steelyard.cli.fleet_file import read_fleet
from steelyard.cli.report_sources import shown
from steelyard.config.catalog_table import load_catalog
from steelyard.placement.baselines import policy_named
from steelyard.sim import simulate
from steelyard.store.sqlite_log import SqliteEventLog
from steelyard.store.workload_file import read_workload


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with two kinds of hardware; its events come from the simulator, whose log is alike."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "fleet.json").write_text(json.dumps(PLAN_POOLS), encoding="utf-8")
    return folder


def record(workload: Path, fleet: Path, log: Path) -> None:
    pools = read_fleet(fleet, load_catalog()).pools
    made = simulate(read_workload(workload), pools, policy_named("cheapest_feasible"), 1)
    with SqliteEventLog(log) as store:
        for event in made.events:
            store.append(event)
        store.durable().result()


@pytest.fixture
def log(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    path = folder / "events.db"
    if path.exists():
        return path
    ran = run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "12", "--rate", "0.5",
        "--model", "m", "--deadline", "900", "--out", "w.parquet",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    record(Path("w.parquet"), Path("fleet.json"), path)
    ran = run("simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--json")
    (folder / "sim.json").write_text(ran.out, encoding="utf-8")
    return path


def test_every_figure_has_unit_source_and_command(log: Path, run: Run) -> None:
    ran = run("report", log.name, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["figures"]
    for figure in told["figures"]:
        assert figure["unit"]
        assert figure["origin"] in {"measured", "predicted", "planned", "simulated", "declared"}
        assert figure["source"] == log.name
        assert figure["command"] == f"steelyard report {log.name} --json"
    sections = {figure["section"] for figure in told["figures"]}
    assert sections == {"summary", "cost", "arm", "use", "slo", "providers", "predictions"}


def test_the_page_loads_nothing_and_says_where_figures_come_from(log: Path, run: Run) -> None:
    ran = run("report", log.name, "--simulation", "sim.json", "-o", "r.html")
    assert ran.code == 0, ran.err
    page = Path("r.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|iframe|img|object|embed)\b", page)
    assert not re.search(r"(src|href)=\"(?!#|data:,)", page)
    for heading in ("Comparison", "Where Arm won", "GPU-hours", "SLO attainment", "Provider"):
        assert heading in page
    assert page.count("again by <code>steelyard report") > 8


def test_a_model_that_the_catalogue_does_not_know_is_told_of_in_place_of_baselines(
    log: Path, run: Run
) -> None:
    ran = run("report", log.name)
    assert ran.code == 0, ran.err
    assert "No baselines:" in ran.out
    assert "Measured over predicted" in ran.out


def test_a_run_is_compared_with_another(log: Path, run: Run) -> None:
    ran = run("report", log.name, "--against", "sim.json", "-o", "r.md")
    assert ran.code == 0, ran.err
    text = Path("r.md").read_text(encoding="utf-8")
    assert "## Comparison" in text
    # The log was made by the same simulation.
    row = next(line for line in text.splitlines() if line.startswith("| paid per task |"))
    assert row.rstrip(" |").endswith("1.00x")


def test_a_plan_of_a_known_model_prices_the_run(log: Path, run: Run) -> None:
    assert log.is_file()
    synth = run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "12", "--rate", "0.5",
        "--out", "known.parquet",
    )  # fmt: skip
    assert synth.code == 0, synth.err
    Path("known.toml").write_text("[slo]\nttft_s = 9.0\n", encoding="utf-8")
    made = run(
        "plan", "--workload", "known.parquet", "--config", "known.toml", "--out", "plan.json"
    )
    assert made.code == 0, made.err
    ran = run("report", "plan.json", "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)["figures"]
    costs = {one["about"] for one in figures if one["name"] == "planned cost per task"}
    assert {"plan", "all GPU", "all x86"} <= costs
    record(Path("known.parquet"), Path("plan.json"), Path("known.db"))
    ran = run("report", "known.db", "--plan", "plan.json", "--json", "-o", "known.html")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)["figures"]
    rents = {one["about"]: one["value"] for one in figures if "whole machines" in one["name"]}
    assert rents["plan: cheapest mix"] <= rents["all GPU"]
    full = {one["about"]: one["value"] for one in figures if "on full machines" in one["name"]}
    assert 0.0 < full["all GPU"] < rents["all GPU"]
    page = Path("known.html").read_text(encoding="utf-8")
    assert "On the catalogue&#39;s machines Arm is cheapest for" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("none.db",), "none.db does not exist"),
        (("fleet.json",), "neither a plan nor a simulation"),
        (("w.parquet",), "w.parquet"),
        (("events.db", "-o", "r.pdf"), "must end in .html or .md"),
        (("events.db", "--simulation", "fleet.json"), "neither a plan nor a simulation"),
        (("events.db", "--against", "none.json"), "none.json does not exist"),
        (("events.db", "-o", "no/such/r.md"), "cannot be written"),
        (("events.db", "--growth", "nan"), "must be a number above 0"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    log: Path, run: Run, arguments: tuple[str, ...], told: str
) -> None:
    assert log.is_file()
    ran = run("report", *arguments)
    assert ran.code == 2
    assert told in ran.err.splitlines()[-1]


def test_no_password_of_a_store_is_shown() -> None:
    for url in ("postgresql://me:se%40cret@h/d", "postgres://me:secret@h:5432/d?password=secret"):
        assert "cret" not in shown(url)


def test_marks_are_told_of_beside_what_providers_did(log: Path, run: Run) -> None:
    marks = [{"t_s": 1.0, "label": "the price changed"}]
    Path("marks.json").write_text(json.dumps(marks), encoding="utf-8")
    ran = run("report", log.name, "--marks", "marks.json")
    assert ran.code == 0, ran.err
    assert "## Providers over time" in ran.out


def test_marks_of_another_form_are_refused_with_one_line(log: Path, run: Run) -> None:
    Path("wrong.json").write_text('[{"at": 1.0}]', encoding="utf-8")
    for name in ("wrong.json", "missing.json"):
        ran = run("report", log.name, "--marks", name)
        assert ran.code != 0
        assert f"marks {name}" in ran.err
