"""Which key of a table is unknown, and which one was meant?"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from steelyard.errors import ConfigError


def is_table(value: object) -> TypeGuard[dict[str, Any]]:
    """Is the value a TOML table?"""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Is the value a TOML array?"""
    return isinstance(value, list)


def refuse_unknown(
    path: Path,
    where: str,
    table: dict[str, Any],
    struct: type[msgspec.Struct],
    nested: Mapping[str, type[msgspec.Struct]],
) -> None:
    """Refuse keys that a struct has no field for; msgspec would not name the nearest one.

    Args:
        path: The configuration file, for the message.
        where: Dotted place of the table, ending in a dot; empty at the top.
        table: What the file says there.
        struct: What it is going to be.
        nested: Keys whose values are tables, with their structs.

    Raises:
        ConfigError: A key is unknown.
    """
    known = [field.encode_name for field in msgspec.structs.fields(struct)]
    if struct.__struct_config__.tag is not None:
        known.append("kind")
    for key, value in table.items():
        if key not in known:
            raise ConfigError(
                f"configuration {path}: unknown key {where}{key}; {nearest(key, known)}"
            )
        if key in nested and is_table(value):
            refuse_unknown(path, f"{where}{key}.", value, nested[key], nested)


def nearest(given: str, allowed: list[str]) -> str:
    """What to write instead?

    Args:
        given: What was written.
        allowed: What may be written.

    Returns:
        A question naming the nearest allowed word, or all of them when none is near.

    >>> nearest("prot", ["host", "port"])
    'did you mean port?'
    """
    close = difflib.get_close_matches(given, allowed, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"allowed are {', '.join(sorted(allowed))}"
