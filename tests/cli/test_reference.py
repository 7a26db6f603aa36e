"""The command reference is written from the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_command_reference_is_what_make_docs_would_write(tmp_path: Path) -> None:
    written = tmp_path / "cli.md"
    command = ["steelyard.cli.app", "utils", "docs", "--name", "steelyard"]
    subprocess.run(  # noqa: S603 - the same program as in the Makefile
        [sys.executable, "-m", "typer", *command, "--output", str(written)],
        check=True,
        capture_output=True,
    )
    assert written.read_text() == (ROOT / "docs" / "cli.md").read_text(), "run: make docs"
