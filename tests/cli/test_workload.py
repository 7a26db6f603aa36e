import json
import subprocess
import sys
from pathlib import Path

import pytest

PLAN_POOLS = [
    {
        "name": name, "provider": provider, "region": "r", "arch": "arm64", "hardware": hardware,
        "offering": name, "usd_per_hour": rent, "replicas": 2,
        "llm_curves": {
            "m": {
                "ttft_floor_s": 0.01, "prefill_s_per_token": 1e-5 / speed,
                "itl_base_s": 0.005 / speed, "itl_slope_s": 0.001, "concurrency_cap": 16,
                "context_tokens": 200000, "predicted": True, "source": "test",
            }
        },
        "tool_curve": {
            "relative_speed": 1.0, "cores": 4.0, "memory_bytes": 68719476736, "start_s": 0.01,
            "slots": 64, "predicted": True, "source": "test",
        },
    }
    for name, provider, hardware, rent, speed in (
        ("arm", "aws", "arm", 0.5, 1.0),
        ("gpu", "gcp", "gpu", 2.0, 8.0),
    )
]  # fmt: skip


def _run(*arguments: str, folder: Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "steelyard", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    (made / "fleet.json").write_text(json.dumps(PLAN_POOLS), encoding="utf-8")
    _run(
        "workload", "synth", "--agent", "tau-bench-like", "--tasks", "30", "--rate", "0.5",
        "--model", "m", "--deadline", "900", "--out", "w.parquet", folder=made,
    )  # fmt: skip
    return made


def test_a_generated_workload_is_described_as_json(folder: Path) -> None:
    done = _run("workload", "describe", "w.parquet", "--json", folder=folder)
    told = json.loads(done.stdout)
    assert told["figures"]["tasks"] == 30
    assert told["report"]["form"] == "steelyard"


def test_policies_are_compared_with_the_best_marked_and_plots_written(folder: Path) -> None:
    done = _run(
        "simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--compare",
        "round_robin,all_cpu", "--outage", "aws@20s:10s", "--out", "plots", folder=folder,
    )  # fmt: skip
    assert "Policies (simulated)" in done.stdout
    assert " *" in done.stdout
    assert "\x1b" not in done.stderr
    written = {path.name for path in (folder / "plots").iterdir()}
    assert written == {
        "over-time-all_cpu.svg",
        "over-time-cheapest_feasible.svg",
        "over-time-round_robin.svg",
        "policies.svg",
    }


def test_figures_of_all_runs_are_in_the_json(folder: Path) -> None:
    done = _run(
        "simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--compare",
        "program_fcfs", "--json", folder=folder,
    )  # fmt: skip
    runs = json.loads(done.stdout)["runs"]
    assert set(runs) == {"cheapest_feasible", "program_fcfs"}
    ours = runs["cheapest_feasible"]
    assert ours["tasks"] == 30
    think = next(one for one in ours["steps"] if one["step"] == "think")
    assert think["ttft"]["p50_s"] <= think["ttft"]["p95_s"] <= think["ttft"]["p99_s"]
    assert {one["pool"] for one in ours["pools"]} == {"arm", "gpu"}
    assert sum(ours["over_time"]["tasks"]) == 30
    assert ours["usd_per_task"] == pytest.approx(ours["paid_usd"] / 30)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--outage", "aws"),
         "--outage 'aws' must be PROVIDER_OR_POOL@START:DURATION"),
        (("simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--outage", "asw@1s:1s"),
         "did you mean aws"),
        (("simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--compare", "edf"),
         "policy 'edf' is unknown"),
        (("workload", "convert", "none.csv"), "none.csv does not exist"),
        (("workload", "synth", "--agent", "coding"), "no arrivals: give --rate"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(
    folder: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = _run(*arguments, folder=folder, code=2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_short_memory_reads_less_of_the_prompts_from_caches(folder: Path) -> None:
    told: list[float] = []
    for options in (("--kv-tokens", "1000", "--prefill-chunk", "2048"), ()):
        done = _run(
            "simulate", "--workload", "w.parquet", "--fleet", "fleet.json", "--json", *options,
            folder=folder,
        )  # fmt: skip
        (run,) = json.loads(done.stdout)["runs"].values()
        told.append(max(pool["cached_frac"] or 0.0 for pool in run["pools"]))
    assert told[0] < told[1]
