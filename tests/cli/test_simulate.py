"""`steelyard simulate` of fleets that change, and the fleets by the hour of `steelyard plan`."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.test_plan import config
from tests.cli.test_workload import PLAN_POOLS

from steelyard.cli.renting_file import read_renting
from steelyard.domain.pool import PoolSpec
from steelyard.sim import Renting

RENTING = """
[pools.gpu]
boot_s = 5
weights_gb = 8
load_gb_per_s = 2.0
preemptions_per_hour = 60
usd_per_hour_by_hour = [1.0, 4.0]

[pools.gpu.scaling]
max_replicas = 4
every_s = 5
hold_s = 30
slack_s = 60

[pools."a*"]
replicas_by_hour = [1, 2]
"""


@pytest.fixture
def files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.json").write_text(json.dumps(PLAN_POOLS), encoding="utf-8")
    (tmp_path / "renting.toml").write_text(RENTING, encoding="utf-8")
    ran = run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "30", "--rate", "0.5",
        "--model", "m", "--deadline", "900", "--out", "w.parquet",
    )  # fmt: skip
    assert ran.code == 0
    return tmp_path


def simulated(run: Run, *arguments: str) -> dict[str, Any]:
    ran = run("simulate", "--workload", "w.parquet", "--json", *arguments)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)["runs"]["cheapest_feasible"]
    return found


def test_a_fleet_that_comes_and_goes_is_paid_for_while_it_is_there(files: Path, run: Run) -> None:
    assert files.is_dir()
    told = simulated(
        run, "--fleet", "fleet.json", "--renting", "renting.toml", "--first-hour", "0.99"
    )
    pools = {one["pool"]: one for one in told["pools"]}
    over = told["over_time"]
    assert 1.0 <= pools["gpu"]["rented_replicas"] <= 4.0
    assert 1.0 < pools["arm"]["rented_replicas"] <= 2.0
    for name, pool in pools.items():
        assert sum(over["pools"][name]["paid_usd"]) == pytest.approx(pool["paid_usd"])
        assert sum(over["pools"][name]["gpu_hours"]) == pytest.approx(pool["gpu_hours"])
    # The price of the second hour comes after 36 s, a quarter of it before.
    gpu = over["pools"]["gpu"]
    hours = [one * over["bucket_s"] / 3600.0 for one in gpu["rented"]]
    assert gpu["paid_usd"][0] == pytest.approx(1.0 * hours[0])
    assert gpu["paid_usd"][-1] == pytest.approx(4.0 * hours[-1])
    again = simulated(
        run, "--fleet", "fleet.json", "--renting", "renting.toml", "--first-hour", "0.99"
    )
    assert again == told


def test_figures_that_are_told_in_total_are_told_over_time(files: Path, run: Run) -> None:
    assert files.is_dir()
    told = simulated(run, "--fleet", "fleet.json")
    over = told["over_time"]
    assert set(over) >= {
        "usd_per_task", "goodput_per_s", "slo_attainment_frac", "gpu_hours", "energy_kwh",
        "paid_usd", "used_usd",
    }  # fmt: skip
    assert {"utilisation_frac", "cached_frac", "energy_kwh"} <= set(over["pools"]["gpu"])
    think = next(one for one in over["steps"] if one["step"] == "think")
    assert {"p50_s", "p95_s", "p99_s"} == set(next(one for one in think["ttft"] if one))


def test_cost_per_task_is_told_of_a_single_run(files: Path, run: Run) -> None:
    assert files.is_dir()
    ran = run("simulate", "--workload", "w.parquet", "--fleet", "fleet.json")
    assert "paid per task" in ran.out
    assert "per task, of which" in ran.out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pools.gpu]\nstart = 4\n", 'unknown key pools."gpu".start; did you mean start_s?'),
        ("[pools.gpx]\nstart_s = 4\n", "'gpx' fits no pool of the fleet; did you mean gpu?"),
        ("[pools.gpu]\nstart_s = -4\n", "it must be a finite number >= 0"),
        ("[pools.gpu]\nweights_gb = 4\n", "no load_gb_per_s"),
        ("[pools.gpu]\nstart_s = 1\nboot_s = 4\n", "give one"),
        ("[pools.gpu.scaling]\nmax_replicas = 1000000000\n", "at most 100,000"),
        ("[pools.gpu]\nreplicas_by_hour = [0]\n", "0 all day"),
        ("[pools.gpu]\nusd_per_hour_by_hour = [nan]\n", "usd_per_hour_by_hour is nan"),
        ('[pools."*"]\nstart_s = 1\n[pools."g*"]\nstart_s = 2\n', "two tables fit pool gpu"),
        ("[pools]\ngpu = 3\n", "must be a table"),
        ("", "names no pool"),
        ("x[", "is not TOML"),
    ],
)
def test_a_wrong_account_of_the_renting_is_told_in_one_line(
    files: Path, run: Run, text: str, told: str
) -> None:
    (files / "bad.toml").write_text(text, encoding="utf-8")
    ran = run(
        "simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--renting", "bad.toml"
    )
    assert ran.code == 2
    assert told in ran.err
    assert ran.err.count("\n") == 1


def test_notice_is_the_providers_unless_it_is_given(files: Path, run: Run) -> None:
    strange = [{**pool, "provider": "nobody"} for pool in PLAN_POOLS]
    (files / "fleet.json").write_text(json.dumps(strange), encoding="utf-8")
    (files / "bad.toml").write_text("[pools.gpu]\npreemptions_per_hour = 1\n", encoding="utf-8")
    ran = run(
        "simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--renting", "bad.toml"
    )
    assert "how long before a preemption nobody warns is not known; give notice_s" in ran.err


def test_what_a_file_says_goes_before_what_the_fleet_says_be_it_the_usual(
    files: Path, llm_pool: PoolSpec
) -> None:
    spot = Renting(start_s=60.0, preemptions_per_hour=2.0, notice_s=30.0, replicas_by_hour=(1, 2))
    known = {"arm": spot, "other": spot}
    given = files / "calm.toml"
    given.write_text("[pools.arm]\nboot_s = 0\npreemptions_per_hour = 0\n", encoding="utf-8")
    told = read_renting(given, (llm_pool,), known)
    assert told == {"arm": Renting(replicas_by_hour=(1, 2)), "other": spot}
    given.write_text("[pools.arm]\nreplicas_by_hour = []\nnotice_s = 5\n", encoding="utf-8")
    told = read_renting(given, (llm_pool,), known)
    assert told["arm"] == Renting(start_s=60.0, preemptions_per_hour=2.0, notice_s=5.0)


def test_a_plan_of_every_hour_is_a_fleet_that_can_be_simulated(run: Run, tmp_path: Path) -> None:
    day = ", ".join(["0.2"] * 12 + ["1.0"] * 12)
    given = config(tmp_path, f"[demand]\nday = [{day}]\n")
    fleet, work = tmp_path / "day.json", tmp_path / "w.parquet"
    ran = run("plan", "--config", given, "--fleet-by-hour", str(fleet), "--json")
    assert ran.code == 0, ran.err
    written = json.loads(fleet.read_text(encoding="utf-8"))
    prices = {one["name"]: one["usd_per_hour"] for one in written["pools"]}
    rents = [
        sum(
            prices[pool] * one["replicas_by_hour"][hour] for pool, one in written["renting"].items()
        )
        for hour in (0, 23)
    ]
    assert 0.0 < rents[0] < rents[1]
    made = run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "20", "--rate", "0.5",
        "--model", "smollm2-135m", "--deadline", "900", "--out", str(work),
    )  # fmt: skip
    assert made.code == 0
    ran = run(
        "simulate", "--workload", str(work), "--fleet", str(fleet), "--first-hour", "11.995",
        "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    over = json.loads(ran.out)["runs"]["cheapest_feasible"]["over_time"]
    per_hour = 3600.0 / over["bucket_s"]
    assert over["paid_usd"][0] * per_hour == pytest.approx(rents[0])
    # What is left of the night finishes its steps first.
    assert rents[1] <= over["paid_usd"][-1] * per_hour * (1.0 + 1e-9)


def test_a_broken_fleet_by_the_hour_is_told_in_one_line(files: Path, run: Run) -> None:
    (files / "day.json").write_text('{"pools": [], "renting": 3}', encoding="utf-8")
    ran = run("simulate", "--workload", "w.parquet", "--fleet", "day.json")
    assert ran.code == 2
    assert "is no fleet by the hour" in ran.err
    assert ran.err.count("\n") == 1


def test_whose_figure_the_memory_is_stands_beside_the_result(files: Path, run: Run) -> None:
    pools = [
        {**pool, "kv_tokens": 90_000, "kv_tokens_source": "derived"}
        if pool["name"] == "gpu"
        else pool
        for pool in PLAN_POOLS
    ]
    (files / "fleet.json").write_text(json.dumps(pools), encoding="utf-8")
    asked = ("simulate", "--workload", "w.parquet", "--fleet", "fleet.json")
    told = json.loads(run(*asked, "--json").out)["kv_memory"]
    assert told == {"gpu": {"tokens": 90_000, "source": "derived"}}
    assert "gpu: a replica holds 90,000 tokens of context (derived)" in run(*asked).out
    given = json.loads(run(*asked, "--json", "--kv-tokens", "50000").out)["kv_memory"]
    assert given["gpu"] == {"tokens": 50_000, "source": "given"}
