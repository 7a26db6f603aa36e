"""What a person adds to the files of a fleet that follows a plan: `edits.toml` beside them.

The files are written anew whenever the plan changes, so what is written into them by hand is lost.
"""

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from steelyard.errors import ConfigError

_FILE = "edits.toml"
_PLACEHOLDER = "your-"


class FleetEdits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is changed in the files.

    Attributes:
        replace: Texts, such as `your-image`, and what stands in their place.
        append: What is added at the end of the files that a pattern such as `*.sky.yaml` fits.
    """

    replace: dict[str, str] = {}
    append: dict[str, str] = {}


def read_edits(folder: Path) -> FleetEdits:
    """Which edits lie in a fleet's folder?

    Args:
        folder: The fleet's.

    Returns:
        None of any kind where there is no file.

    Raises:
        ConfigError: It cannot be read.
    """
    path = folder / _FILE
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), FleetEdits)
    except FileNotFoundError:
        return FleetEdits()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; it may hold tables [replace] and [append] of texts"
        ) from error


def edited(edits: FleetEdits, files: Mapping[str, str]) -> dict[str, str]:
    r"""The files with what a person has changed in them.

    Args:
        edits: What is changed.
        files: By name.

    >>> edited(FleetEdits(replace={"your-image": "me:1"}), {"a.yaml": "image: your-image"})
    {'a.yaml': 'image: me:1'}
    >>> edited(FleetEdits(append={"*.sky.yaml": "run: x"}), {"a.sky.yaml": "name: a\n"})
    {'a.sky.yaml': 'name: a\nrun: x\n'}
    """
    found: dict[str, str] = {}
    for name, text in files.items():
        changed = text
        for old, new in edits.replace.items():
            changed = changed.replace(old, new)
        for pattern, more in edits.append.items():
            if fnmatchcase(name, pattern):
                changed += more if more.endswith("\n") else f"{more}\n"
        found[name] = changed
    return found


def check_filled(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse files in which a placeholder is left, before a tool is called with them.

    Args:
        folder: The fleet's.
        files: By name, edited.

    Raises:
        ConfigError: One has a value that starts with `your-`.
    """
    for name, text in sorted(files.items()):
        for line in text.splitlines():
            value = line.partition(": ")[2].strip('"')
            if value.startswith(_PLACEHOLDER):
                raise ConfigError(
                    f"{folder / name} would say {line.strip()}, and nothing was rented: write "
                    f'replace = {{ "{value}" = "..." }} into {folder / _FILE}, since the files '
                    "themselves are written anew each time"
                )
