"""Can what a command will write be written? Asked before the work, which may take minutes."""

import os
from collections.abc import Callable
from pathlib import Path

from steelyard.errors import ConfigError


def check_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written.

    Args:
        option: That names it, for the error.
        path: The file; None where none is wanted.

    Raises:
        ConfigError: It is a folder, its name is none, it or its folder is missing or closed to us.
    """
    _check(option, path, _against_file)


def check_folder(option: str, folder: Path | None) -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        option: That names it, for the error.
        folder: The folder, which is made with those above it; None where none is wanted.

    Raises:
        ConfigError: A file is in the way, its name is none, or it is closed to us.
    """
    _check(option, folder, _against_folder)


def _check(option: str, path: Path | None, against: Callable[[Path], str]) -> None:
    if path is None:
        return
    try:
        reason = against(path)
    except OSError as error:
        # Its name is too long, or a folder above it does not let us look.
        reason = f"{error.strerror}; name another one"
    if reason:
        raise ConfigError(f"{option} {path} cannot be written: {reason}")


def _against_file(path: Path) -> str:
    """What speaks against writing a file? Empty where nothing does."""
    if path.is_dir():
        return "it is a folder; name a file in it"
    # Files are written in place: one that is there, such as /dev/stdout, needs no open folder.
    if path.exists():
        return "" if os.access(path, os.W_OK) else "it is closed to this user; name another one"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}; make it first"
    return _against_entry(path.parent)


def _against_folder(folder: Path) -> str:
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return _against_entry(there) if there.is_dir() else f"{there} is no folder; name another one"


def _against_entry(folder: Path) -> str:
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    return f"{folder} is closed to this user; name another one"
