"""`steelyard apply`: shown first, done with --yes, and what is missing is one line."""

import json
import os
from pathlib import Path

import pytest
from tests.cli.conftest import Run

EXAMPLE = str(Path(__file__).parents[2] / "plan.example.toml")


@pytest.fixture
def folder(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan."""
    monkeypatch.chdir(tmp_path)
    assert run("plan", "--config", EXAMPLE, "--out", "plan.json", "--json").code == 0
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of the tools' names that note how they were called."""
    called = tmp_path / "called"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sky", "kubectl"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{called}"\n', encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return called


def fill(folder: Path, image: str = "me/steelyard:1") -> None:
    """Say what shall run there."""
    (folder / "fleet").mkdir(exist_ok=True)
    lines = [
        f'replace = {{ "your-image" = "{image}" }}',
        'append = { "*.sky.yaml" = "run: steelyard up" }',
    ]
    (folder / "fleet" / "edits.toml").write_text("\n".join(lines), encoding="utf-8")


def apply(run: Run, *arguments: str) -> str:
    ran = run("apply", "plan.json", "--config", EXAMPLE, *arguments)
    assert ran.code == 0, ran.err
    return ran.out


def machines(folder: Path) -> dict[str, int]:
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return {one["offering"]: one["machines"] for one in plan["machines"]}


def one_more(folder: Path, offering: str, more: int) -> None:
    path = folder / "plan.json"
    plan = json.loads(path.read_text(encoding="utf-8"))
    for one in plan["machines"]:
        one["machines"] += more if one["offering"] == offering else 0
    plan["machines"] = [one for one in plan["machines"] if one["machines"] > 0]
    path.write_text(json.dumps(plan), encoding="utf-8")


@pytest.mark.parametrize("target", ["skypilot", "kubernetes"])
def test_without_yes_nothing_is_changed(
    folder: Path, run: Run, programs: Path, target: str
) -> None:
    told = json.loads(apply(run, "--to", target, "--json"))
    assert {one["offering"]: one["after"] for one in told["changes"]} == machines(folder)
    assert told["commands"]
    assert not told["done"]
    assert not (folder / "fleet").exists()
    assert not programs.exists()
    assert "nothing was changed" in apply(run, "--to", target)


def test_a_changed_plan_changes_what_differs_alone(folder: Path, run: Run, programs: Path) -> None:
    first, *others = sorted(machines(folder))
    assert others
    fill(folder)
    apply(run, "--to", "kubernetes", "--yes")
    assert programs.read_text(encoding="utf-8").count("kubectl apply") == 1
    told = json.loads(apply(run, "--to", "kubernetes", "--json"))
    assert (told["changes"], told["files"], told["commands"]) == ([], [], [])
    one_more(folder, first, 2)
    told = json.loads(apply(run, "--to", "kubernetes", "--json"))
    (change,) = told["changes"]
    assert change["offering"] == first
    assert change["after"] == change["before"] + 2
    one_more(folder, first, -100)
    apply(run, "--to", "kubernetes", "--yes")
    assert "kubectl delete deployment" in programs.read_text(encoding="utf-8")


def test_skypilot_lets_go_before_it_launches_anew(folder: Path, run: Run, programs: Path) -> None:
    apply(run, "--to", "skypilot", "--yes")
    programs.unlink()
    one_more(folder, min(machines(folder)), 1)
    apply(run, "--to", "skypilot", "--yes")
    down, launch = programs.read_text(encoding="utf-8").splitlines()
    assert down.startswith("sky down --yes ")
    assert launch.startswith("sky launch --yes --detach-run --cluster ")


def test_a_tool_that_is_missing_or_fails_is_one_line(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, programs: Path
) -> None:
    fill(folder)
    failing = folder / "programs" / "kubectl"
    failing.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    ran = run("apply", "plan.json", "--config", EXAMPLE, "--to", "kubernetes", "--yes")
    assert ran.code == 2
    assert "ended with 3" in ran.err
    assert not (folder / "fleet" / "in-force.json").exists()
    monkeypatch.setenv("PATH", str(folder))
    ran = run("apply", "plan.json", "--config", EXAMPLE, "--to", "skypilot", "--yes")
    assert ran.code == 2
    assert "sky is not installed" in ran.err
    assert ran.err.strip().count("\n") == 0
    assert not programs.exists()


def test_a_folder_belongs_to_one_tool(folder: Path, run: Run, programs: Path) -> None:
    fill(folder)
    apply(run, "--to", "kubernetes", "--yes")
    ran = run("apply", "plan.json", "--config", EXAMPLE, "--to", "skypilot")
    assert ran.code == 2
    assert "--out" in ran.err
    ran = run("apply", "plan.json", "--config", EXAMPLE, "--to", "karpenter")
    assert ran.code == 2
    assert "allowed are ray, skypilot, kubernetes" in ran.err
    assert programs.exists()


def test_what_a_person_adds_outlasts_a_new_plan_and_placeholders_are_told(
    folder: Path, run: Run, programs: Path
) -> None:
    asked = ("apply", "plan.json", "--config", EXAMPLE, "--to", "kubernetes", "--yes")
    ran = run(*asked)
    assert ran.code == 2
    assert 'replace = { "your-image" = "..." } into fleet/edits.toml' in ran.err
    assert not programs.exists()
    fill(folder)
    assert run(*asked).code == 0
    file = folder / "fleet" / "deployments.yaml"
    assert "me/steelyard:1" in file.read_text(encoding="utf-8")
    # Another image alone is a change, too.
    fill(folder, "me/steelyard:2")
    assert run(*asked).code == 0
    assert "me/steelyard:2" in file.read_text(encoding="utf-8")
    assert programs.read_text(encoding="utf-8").count("kubectl apply") == 2
    (folder / "fleet" / "edits.toml").write_text("replaces = {}", encoding="utf-8")
    ran = run(*asked)
    assert ran.code == 2
    assert "edits.toml cannot be read: " in ran.err


def test_another_image_that_the_tool_did_not_take_is_offered_again(
    folder: Path, run: Run, programs: Path
) -> None:
    asked = ("--to", "kubernetes", "--yes")
    fill(folder)
    apply(run, *asked)
    tool = folder / "programs" / "kubectl"
    works = tool.read_text(encoding="utf-8")
    tool.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    fill(folder, "me/steelyard:2")
    assert run("apply", "plan.json", "--config", EXAMPLE, *asked).code == 2
    tool.write_text(works, encoding="utf-8")
    for _ in range(2):
        apply(run, *asked)
        assert programs.read_text(encoding="utf-8").count("kubectl apply") == 2


def test_what_machines_shall_run_is_in_every_file_of_skypilot(
    folder: Path, run: Run, programs: Path
) -> None:
    fill(folder)
    apply(run, "--to", "skypilot", "--yes")
    files = sorted((folder / "fleet").glob("*.sky.yaml"))
    assert files
    assert programs.exists()
    assert all(one.read_text(encoding="utf-8").endswith("\nrun: steelyard up\n") for one in files)
