"""The Containerfile, by its linter, and the locks that it installs from."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def _linter() -> str | None:
    beside = Path(sys.executable).parent / "hadolint"
    return str(beside) if beside.is_file() else shutil.which("hadolint")


def test_the_linter_finds_nothing() -> None:
    linter = _linter()
    if linter is None:
        pytest.skip("hadolint has no wheel for this machine")
    command = [linter, "--failure-threshold", "style", str(REPOSITORY / "Containerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout


def _instructions(word: str) -> list[str]:
    text = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith(word + " ")]


def test_the_process_is_nobody() -> None:
    assert _instructions("USER") == ["USER 10001:10001"]


def test_everything_that_is_copied_is_let_in() -> None:
    ignored = (REPOSITORY / ".containerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    own = [line.split()[1:-1] for line in _instructions("COPY") if "--from" not in line]
    assert {name for names in own for name in names} == let_in


def test_the_container_gets_what_was_tested() -> None:
    def pins(name: str) -> set[tuple[str, str]]:
        found: list[tuple[str, str]] = _PIN.findall((REPOSITORY / name).read_text("utf-8"))
        return set(found)

    container, tested = pins("requirements-container.lock"), pins("requirements.lock")
    assert container <= tested, container - tested
    names = {name for name, _ in container}
    assert {"openvino-genai", "xllamacpp", "psycopg-binary"} <= names
    assert not {"pytest", "mypy", "basedpyright", "playwright"} & names
