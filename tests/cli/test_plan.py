import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

EXAMPLE = Path(__file__).parents[2] / "plan.example.toml"
AGENT = """
[[agents]]
name = "librarian"
tasks_per_hour = 20000
deadline_s = {deadline_s}

[[agents.steps]]
name = "parse"
kind = "tool"
cpu_s = 0.4
memory_mb = 300

[[agents.steps]]
name = "summarise"
kind = "llm"
model = "smollm2-135m"
per_task = 3
prompt_tokens = 600
cached_tokens = 400
output_tokens = 60
"""


def config(folder: Path, rules: str = "", deadline_s: float = 30.0) -> str:
    path = folder / "plan.toml"
    path.write_text(rules + AGENT.format(deadline_s=deadline_s), encoding="utf-8")
    return str(path)


def planned(run: Run, *arguments: str) -> dict[str, Any]:
    ran = run("plan", *arguments, "--json")
    assert ran.err == ""
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_the_example_can_be_planned(run: Run) -> None:
    plan = planned(run, "--config", str(EXAMPLE))
    assert plan["gap_frac"] <= 1e-4
    assert plan["usd_per_hour"] > 0.0


def test_the_same_input_gives_the_same_plan_byte_for_byte(run: Run, tmp_path: Path) -> None:
    given = config(tmp_path)
    written: list[bytes] = []
    for name in ("one.json", "two.json"):
        out = tmp_path / name
        ran = run("plan", "--config", given, "--out", str(out), "--json")
        written.append(out.read_bytes())
        assert ran.out.encode() == out.read_bytes()
    assert written[0] == written[1]


def test_declared_rates_make_the_load(run: Run, tmp_path: Path) -> None:
    plan = planned(run, "--config", config(tmp_path), "--growth", "2")
    rates = {c["step"]: c["rate_per_s"] for c in plan["classes"]}
    assert rates["parse"] == pytest.approx(2 * 20000 / 3600)
    assert rates["summarise"] == pytest.approx(3 * rates["parse"])


def test_what_is_allowed_is_kept(run: Run, tmp_path: Path) -> None:
    rules = '[allowed]\nproviders = ["azure"]\nregions = ["eastus"]\narchs = ["arm64"]\n'
    plan = planned(run, "--config", config(tmp_path, rules))
    assert plan["machines"]
    for machines in plan["machines"]:
        assert (machines["provider"], machines["region"]) == ("azure", "eastus")
        assert machines["hardware"] == "arm"


def test_owned_machines_are_used_first_and_no_more_than_there_are(run: Run, tmp_path: Path) -> None:
    bare = planned(run, "--config", config(tmp_path))
    owned = '[[owned]]\noffering = "aws/m9g.xlarge"\nmachines = 2\nusd_per_hour = 0.001\n'
    plan = planned(run, "--config", config(tmp_path, owned))
    used = {m["offering"]: m["machines"] for m in plan["machines"]}
    assert 1 <= used["aws/us-east-1/m9g.xlarge/owned"] <= 2
    assert plan["usd_per_hour"] < bare["usd_per_hour"]


def test_stock_limits_are_kept(run: Run, tmp_path: Path) -> None:
    bare = planned(run, "--config", config(tmp_path))
    first = max(bare["machines"], key=lambda m: m["machines"])
    rules = f'[stock]\n"{first["offering"]}" = {first["machines"] - 1}\n'
    plan = planned(run, "--config", config(tmp_path, rules))
    used = {m["offering"]: m["machines"] for m in plan["machines"]}
    assert used.get(first["offering"], 0) <= first["machines"] - 1
    assert plan["usd_per_hour"] >= bare["usd_per_hour"]


def test_spot_machines_are_bought_only_where_allowed(run: Run, tmp_path: Path) -> None:
    bare = planned(run, "--config", config(tmp_path))
    assert not any(m["offering"].endswith("/spot") for m in bare["machines"])
    plan = planned(run, "--config", config(tmp_path, "[allowed]\nspot = true\n"))
    assert any(m["offering"].endswith("/spot") for m in plan["machines"])
    assert plan["usd_per_hour"] <= bare["usd_per_hour"]


def test_a_provider_loss_is_survived_and_caps_are_kept(run: Run, tmp_path: Path) -> None:
    # Arm alone keeps it quick: a cap makes the search look at every offering.
    rules = "[rules]\nprovider_share_cap = 0.7\nsurvive_provider_loss_frac = 0.3\n"
    rules += '[allowed]\narchs = ["arm64"]\n'
    plan = planned(run, "--config", config(tmp_path, rules))
    spent: dict[str, float] = {}
    for m in plan["machines"]:
        rent = m["usd_per_hour"] * m["machines"]
        spent[m["provider"]] = spent.get(m["provider"], 0.0) + rent
    assert len(spent) >= 2
    assert max(spent.values()) <= 0.7 * plan["usd_per_hour"] * (1 + 1e-9)


def test_a_region_loss_is_survived(run: Run, tmp_path: Path) -> None:
    plan = planned(run, "--config", config(tmp_path, "[rules]\nsurvive_region_loss_frac = 0.3\n"))
    assert len({(m["provider"], m["region"]) for m in plan["machines"]}) >= 2


def test_little_depends_on_spot_under_a_cap(run: Run, tmp_path: Path) -> None:
    capped = planned(
        run,
        "--config",
        config(tmp_path, "[allowed]\nspot = true\n[rules]\nspot_share_cap = 0.0\n"),
    )
    bare = planned(run, "--config", config(tmp_path))
    assert capped["usd_per_hour"] == pytest.approx(bare["usd_per_hour"], rel=1e-3)


def test_a_price_on_energy_counts_as_cost_and_its_watts_are_told(run: Run, tmp_path: Path) -> None:
    rules = "[objective]\nusd_per_kwh = 0.3\npue = 1.5\n"
    plan = planned(run, "--config", config(tmp_path, rules))
    bare = planned(run, "--config", config(tmp_path))
    assert plan["rent_usd_per_hour"] >= bare["usd_per_hour"] * (1 - 1e-3)
    assert plan["usd_per_hour"] == pytest.approx(
        plan["rent_usd_per_hour"] + plan["energy_usd_per_hour"]
    )
    assert plan["energy_usd_per_hour"] == pytest.approx(plan["watts"] * 1.5 / 1000.0 * 0.3)
    assert bare["energy_usd_per_hour"] == 0.0
    assert bare["watts"] > 0.0
    assert all(m["watts_source"] for m in plan["machines"])


def test_a_shorter_deadline_never_makes_the_plan_cheaper(run: Run, tmp_path: Path) -> None:
    loose = planned(run, "--config", config(tmp_path, deadline_s=60.0))
    tight = planned(run, "--config", config(tmp_path, deadline_s=2.5))
    assert tight["usd_per_hour"] >= loose["usd_per_hour"]
    per_task = {"parse": 1.0, "summarise": 3.0}
    total_s = sum(c["share_frac"] * c["latency_s"] * per_task[c["step"]] for c in tight["choices"])
    assert total_s <= 2.5


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("[rules]\nbudget_usd_per_hour = 0.01\n", "budget of 0.01 USD/h is too small"),
        ("[rules]\nbudget_usd_per_hour = -1\n", "rules.budget_usd_per_hour is -1"),
        ("[rules]\nprovider_share_cap = 0.2\n", "raise the cap"),
        ("[rules]\nprovider_share_cap = 1.5\n", "at most 1"),
        ("[rules]\nbudget = 1\n", "unknown key rules.budget"),
        ('[allowed]\nproviders = ["awz"]\n', "did you mean aws"),
        ('[allowed]\narchs = ["arm"]\n', "allowed.archs"),
        ('[stock]\n"aws/m9g.xlrge" = 1\n', "aws/m9g.xlarge"),
        ("[stock]\n'aws/m9g.xlarge' = -1\n", "0 or more"),
        ("[slo]\nitl_s = 0\n", "slo.itl_s is 0"),
        ("[[slo.steps]]\nttft_s = -1\n", "slo.steps[0].ttft_s is -1"),
        ("[[slo.steps]]\nstep = 'sumarise'\nttft_s = 1\n", "the demand has no such step; it has:"),
        ("[[slo.steps]]\nstp = 'summarise'\n", "did you mean step?"),
        ("[[slo.steps]]\nstep = 'parse'\nlatency_s = 1e-6\n", "over its limit of 1e-06 s"),
        ("[rules]\nspot_share_cap = 2\n", "rules.spot_share_cap is 2"),
        ("[rules]\nsurvive_region_loss_frac = -1\n", "rules.survive_region_loss_frac is -1"),
        (
            '[rules]\nsurvive_region_loss_frac = 0.5\n[allowed]\nregions = ["us-east-1"]\n',
            "without region 'us-east-1' of 'aws' nothing can serve",
        ),
        ("[objective]\nusd_per_kwh = -0.1\n", "objective.usd_per_kwh is -0.1"),
        ("[objective]\npue = 0.9\n", "objective.pue is 0.9"),
        ("[demand]\narrivals = 'most'\n", "demand.arrivals"),
        ("[demand]\nday = [1.0]\n", "demand.day has 1 numbers; give one per hour"),
        ("[headroom]\nsimulated_attainment_frac = 1.2\n", "at most 1"),
        ("[headroom]\nservice_factor = 0\n", "headroom.service_factor is 0"),
        ("[slo]\nitl_s = 0.000001\n", "loosen the SLO"),
        ("[[owned]]\noffering = 'aws/m9g.xlarge'\nmachines = 0\nusd_per_hour = 1\n", "above 0"),
        ("[[agents]]\nname = 'x'\ntasks_per_hour = -3\nsteps = []\n", "tasks_per_hour is -3"),
        ("[[agents]]\nname = 'x'\ntasks_per_hour = 3\nsteps = []\n", "has no steps"),
        ("[[agents]]\nname = 'x'\ntaks_per_hour = 3\n", "did you mean tasks_per_hour"),
        ("[nothing", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, rules: str, told: str
) -> None:
    ran = run("plan", "--config", config(tmp_path, rules), "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert told in ran.err


def test_a_deadline_that_no_hardware_keeps_names_the_agent(run: Run, tmp_path: Path) -> None:
    ran = run("plan", "--config", config(tmp_path, deadline_s=0.2))
    assert ran.code == 2
    assert "agent 'librarian' has a deadline of 0.2 s" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give either --workload"),
        (("--config", "missing.toml"), "cannot be read"),
        (("--demand", "missing.json"), "cannot be read"),
        (("--demand", "a.json", "--workload", "b.jsonl"), "stands alone"),
    ],
)
def test_wrong_options_are_one_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    ran = run("plan", *arguments)
    assert ran.code == 2
    assert told in ran.err
    assert ran.err.count("\n") == 1


def test_estimates_are_planned_with_only_where_allowed(run: Run, tmp_path: Path) -> None:
    """On one type of machine that was never measured with the model."""
    path = tmp_path / "plan.toml"
    text = AGENT.format(deadline_s=600).replace("smollm2-135m", "gemma-2-2b")
    others = '[allowed]\nproviders = ["aws"]\narchs = ["arm64"]\n[slo]\nttft_s = 9\nitl_s = 0.5\n'
    path.write_text(others + text, encoding="utf-8")
    with_estimates = planned(run, "--config", str(path), "--allow-predicted")
    measured_only = planned(run, "--config", str(path))
    assert all(c["origin"] != "predicted" for c in measured_only["choices"])
    assert with_estimates["options"]["capacity"]["allow_predicted"]
    assert not measured_only["options"]["capacity"]["allow_predicted"]
    assert with_estimates["usd_per_hour"] <= measured_only["usd_per_hour"] * (1 + 1e-6)


def test_plots_are_written(run: Run, tmp_path: Path) -> None:
    rules = '[allowed]\nproviders = ["gcp"]\narchs = ["arm64"]\n'
    ran = run("plan", "--config", config(tmp_path, rules), "--plots", str(tmp_path / "p"))
    assert ran.code == 0, ran.err
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert names == [
        "cost-over-latency.svg",
        "cost-over-load.svg",
        "mix-over-day.svg",
        "mix-over-load.svg",
    ]


def test_sensitivity_is_in_the_tables_and_in_the_json(run: Run, tmp_path: Path) -> None:
    rules = '[allowed]\nproviders = ["gcp"]\narchs = ["arm64"]\n'
    out = tmp_path / "plan.json"
    ran = run("plan", "--config", config(tmp_path, rules), "--sensitivity", "--out", str(out))
    assert ran.code == 0, ran.err
    found = json.loads(out.read_text())["sensitivity"]
    assert len(found["cases"]) == 5
    for title in ("What changes the answer: prices", "load and cached share", "GPU-hours freed"):
        assert title in ran.out
    assert "load x 10" in ran.out


def test_simulated_headroom_needs_a_workload(run: Run, tmp_path: Path) -> None:
    ran = run("plan", "--config", config(tmp_path), "--simulated-headroom")
    assert (ran.code, ran.out) == (2, "")
    assert "give --workload FILE" in ran.err
