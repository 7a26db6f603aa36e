import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

EXAMPLE = Path(__file__).parents[2] / "plan.example.toml"


@pytest.fixture
def plan(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    assert run("plan", "--config", str(EXAMPLE), "--out", str(path), "--json").code == 0
    return path


def test_a_plan_is_exported_for_every_target(run: Run, plan: Path, tmp_path: Path) -> None:
    for target in ("skypilot", "karpenter", "kubernetes", "ray"):
        folder = tmp_path / target
        ran = run("export", str(plan), "--to", target, "--out", str(folder))
        assert ran.code == 0, ran.err
        written = sorted(str(path) for path in folder.iterdir())
        assert ran.out.split() == written
        again = run("export", str(plan), "--to", target, "--out", str(folder), "--json")
        assert json.loads(again.out) == {"target": target, "files": written}
        assert all("USD/h each" in Path(path).read_text(encoding="utf-8") for path in written)


def test_what_cannot_be_exported_is_one_line(run: Run, plan: Path, tmp_path: Path) -> None:
    ran = run("export", str(plan), "--to", "nomad")
    assert ran.code == 2
    assert "allowed are" in ran.err
    ran = run("export", str(tmp_path / "none.json"), "--to", "ray")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
