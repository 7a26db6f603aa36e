"""The command that measures an Arm machine, as far as it goes without one."""

import platform
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "measure_arm.sh"


def _run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603
        ["/usr/bin/env", "bash", str(SCRIPT), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_help_names_every_file_that_it_writes_and_shows_no_code(tmp_path: Path) -> None:
    ran = _run("--help", folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    written = set(re.findall(r"\$folder/([a-z-]+\.(?:txt|json))", SCRIPT.read_text("utf-8")))
    assert {"machine.txt", "one-core.json"} <= written
    assert written <= set(re.findall(r"[a-z-]+\.(?:txt|json)", ran.stdout))
    assert "set -e" not in ran.stdout


def test_an_option_that_it_does_not_know_is_one_line(tmp_path: Path) -> None:
    ran = _run("--quick", folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "--quick" in ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(platform.machine() == "aarch64", reason="this is an Arm machine")
def test_another_machine_is_not_measured_by_mistake(tmp_path: Path) -> None:
    ran = _run(str(tmp_path / "measured"), folder=tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert platform.machine() in ran.stderr
    assert not list(tmp_path.iterdir())
