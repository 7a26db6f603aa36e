"""From a table of a TOML file to a frozen struct; what is wrong is named by key and value."""

import copy
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from steelyard.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)

# msgspec tells the place at the end of its message: " - at `$.curve.itl_base_s`".
_PLACE = re.compile(r" - at `\$(.*)`$")
# A part of a place: a field, the number of a list's entry, or a table's entry, which is not named.
_PART = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_SOME_ENTRY = "..."


def convert_table(path: Path, where: str, table: dict[str, Any], struct: type[S]) -> S:
    """What does a table say?

    Args:
        path: The configuration file, for the message.
        where: Dotted place of the table; empty at the top.
        table: What the file says there.
        struct: What it is to be.

    Returns:
        The struct; every number in it is finite and not negative.

    Raises:
        ConfigError: A value is missing, of the wrong type, negative or not finite.
    """
    try:
        converted = msgspec.convert(table, struct, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        told = str(error)
        place = _PLACE.search(told)
        inside = _named(table, place.group(1) if place else "", struct)
        value = f" is {_value_at(table, inside)!r}" if inside else ""
        key = "".join(
            [where, *(f".{one}" if isinstance(one, str) else f"[{one}]" for one in inside)]
        )
        key = key.lstrip(".")
        reason = _PLACE.sub("", told).replace("`", "")
        raise ConfigError(f"configuration {path}: {key}{value}: {reason}") from error
    _check_numbers(f"configuration {path}: {where}".rstrip("."), converted)
    return converted


def _to_path(wanted: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook is untyped
    if wanted is Path and isinstance(value, str):
        return Path(value)
    # msgspec adds the place to it.
    raise TypeError(f"Expected text, got {type(value).__name__}")


def _named(table: dict[str, Any], inside: str, struct: type[S]) -> list[str | int]:
    """The parts of a place; an entry that msgspec does not name is the one that is wrong alone."""
    parts: list[str | int] = []
    for field, entry in _PART.findall(inside):
        if field:
            parts.append(field)
        elif entry != _SOME_ENTRY:
            parts.append(int(entry))
        else:
            entries = _value_at(table, parts)
            wrong = [name for name in entries if _is_wrong(table, [*parts, name], struct)]
            if not wrong:
                return parts
            parts.append(wrong[0])
    return parts


def _is_wrong(table: dict[str, Any], parts: list[str | int], struct: type[S]) -> bool:
    """Is the table still wrong if the innermost table of a place has this entry alone?"""
    *outer, name = parts
    alone: Any = {name: _value_at(table, parts)}
    for depth in reversed(range(len(outer))):
        around = copy.copy(_value_at(table, outer[:depth]))
        around[outer[depth]] = alone
        alone = around
    try:
        msgspec.convert(alone, struct, dec_hook=_to_path)
    except msgspec.ValidationError:
        return True
    return False


def _value_at(table: dict[str, Any], parts: list[str | int]) -> Any:  # noqa: ANN401 - TOML's
    value: Any = table
    for part in parts:
        value = value[part]
    return value


def _check_numbers(where: str, struct: msgspec.Struct) -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            _check_numbers(f"{where}.{name}", value)
        elif isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{where}.{name} is {value}; it must be a finite number >= 0")
