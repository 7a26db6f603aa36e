"""Shell completion as `steelyard --install-completion` sets it up."""

import os
import subprocess
import sys


def test_bash_is_told_the_commands_that_begin_with_what_was_typed() -> None:
    environment = os.environ | {
        "_STEELYARD_COMPLETE": "complete_bash",
        "COMP_WORDS": "steelyard re",
        "COMP_CWORD": "1",
    }
    code = "import sys; from steelyard.cli.app import app; app(prog_name='steelyard')"
    done = subprocess.run(  # noqa: S603 - this program
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == {"reload", "replan", "report"}
