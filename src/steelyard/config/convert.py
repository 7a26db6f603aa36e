"""From a table of a TOML file to a frozen struct; what is wrong is named by key and value."""

import math
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from steelyard.errors import ConfigError

S = TypeVar("S", bound=msgspec.Struct)

# msgspec tells the place at the end of its message: " - at `$.curve.itl_base_s`".
_PLACE = re.compile(r" - at `\$(.*)`$")
_PART = re.compile(r"\.(\w+)|\[(\d+)\]")


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
        inside = place.group(1) if place else ""
        key = f"{where}{inside}".lstrip(".")
        value = _value_at(table, inside) if inside else ""
        reason = _PLACE.sub("", told).replace("`", "")
        raise ConfigError(f"configuration {path}: {key}{value}: {reason}") from error
    _check_numbers(f"configuration {path}: {where}".rstrip("."), converted)
    return converted


def _to_path(wanted: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook is untyped
    if wanted is Path and isinstance(value, str):
        return Path(value)
    # msgspec adds the place to it.
    raise TypeError(f"Expected text, got {type(value).__name__}")


def _value_at(table: dict[str, Any], inside: str) -> str:
    value: Any = table
    for name, index in _PART.findall(inside):
        value = value[name] if name else value[int(index)]
    return f" is {value!r}"


def _check_numbers(where: str, struct: msgspec.Struct) -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct):
            _check_numbers(f"{where}.{name}", value)
        elif isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{where}.{name} is {value}; it must be a finite number >= 0")
