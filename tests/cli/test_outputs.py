"""What may be written is not refused, and what is closed to us is."""

import os
from pathlib import Path

import pytest

from steelyard.cli.outputs import check_file, check_folder
from steelyard.errors import ConfigError


def test_a_file_that_is_there_may_be_written_in_a_closed_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.json"
    there.touch()

    def access(path: Path, _mode: int) -> bool:
        return path.is_file()

    # To the administrator, who may run this, no folder is closed.
    monkeypatch.setattr(os, "access", access)
    check_file("--out", there)
    for check in (check_file, check_folder):
        with pytest.raises(ConfigError, match="is closed to this user; name another one"):
            check("--out", tmp_path / "new")


def test_a_file_that_is_closed_to_us_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.json"
    there.touch()

    def access(path: Path, _mode: int) -> bool:
        return path.is_dir()

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ConfigError, match="it is closed to this user; name another one"):
        check_file("--out", there)


def test_a_name_of_impossible_length_is_told_as_such(tmp_path: Path) -> None:
    for check in (check_file, check_folder):
        with pytest.raises(ConfigError, match="File name too long; name another one"):
            check("--out", tmp_path / ("n" * 300))
