"""Runs the program as its entry point does, in this process."""

import sys
from collections.abc import Callable

import msgspec
import pytest
from tests.store.conftest import postgres

from steelyard.cli.app import main

# The database of tests/store, for commands on it.
__all__ = ["postgres"]


class Ran(msgspec.Struct, frozen=True):
    """What a run of the program left: exit code and both outputs."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["steelyard", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 1 if code else 0, out, err)

    return call
