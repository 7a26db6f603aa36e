"""Can what a command will write be written? Asked before the work, which may take minutes."""

import os
from pathlib import Path

from steelyard.errors import ConfigError


def check_file(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written.

    Args:
        option: That names it, for the error.
        path: The file; None where none is wanted.

    Raises:
        ConfigError: It is a folder, or its folder is missing or closed to us.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path} cannot be written: it is a folder; name a file in it")
    _check_parent(option, path, path.parent)


def check_folder(option: str, folder: Path | None) -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        option: That names it, for the error.
        folder: The folder, which is made with those above it; None where none is wanted.

    Raises:
        ConfigError: A file is in the way, or it is closed to us.
    """
    if folder is None:
        return
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ConfigError(
            f"{option} {folder} cannot be written: {there} is no folder; name another one"
        )
    _check_parent(option, folder, there)


def _check_parent(option: str, path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(
            f"{option} {path} cannot be written: there is no folder {folder}; make it first"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {path} cannot be written: {folder} is closed to this user; name another one"
        )
