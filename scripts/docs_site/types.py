"""Types as people read them in a table."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

_WORDS: dict[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    bytes: "bytes",
    Any: "any JSON",
    type(None): "none",
}


def readable(kind: Any) -> str:  # noqa: ANN401 - any annotation
    """How is a type told?

    Args:
        kind: An annotation.

    Returns:
        Words.

    >>> readable(tuple[str, ...]), readable(int | None), readable(Literal["a", "b"])
    ('list of text', 'whole number or none', '"a" or "b"')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'"{one}"' for one in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(readable(one) for one in inner))
    if origin in (tuple, list, frozenset, set):
        return f"list of {readable(inner[0])}"
    if origin is dict:
        return f"{readable(inner[1])} by name"
    # Annotated[X, ...]: what X is.
    if hasattr(kind, "__metadata__"):
        return readable(inner[0])
    return _WORDS.get(kind) or str(getattr(kind, "__name__", kind))


def numeric(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Does a type hold numbers, alone or among others?"""
    if kind in (int, float):
        return True
    if get_origin(kind) is Literal:
        return False
    return any(numeric(one) for one in get_args(kind))


def structs_in(kind: Any) -> list[type[msgspec.Struct]]:  # noqa: ANN401 - any annotation
    """Which structs are inside a type, in order?"""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [struct for one in get_args(kind) for struct in structs_in(one)]


def default(field: "msgspec.structs.FieldInfo") -> str:
    """What counts where a field is left out?

    Args:
        field: The field.

    Returns:
        The default as TOML would say it, `required`, or empty for an empty table.
    """
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
        return "" if isinstance(value, dict | msgspec.Struct) else f"`{_value(value)}`"
    if field.default is msgspec.NODEFAULT:
        return "required"
    if isinstance(field.default, msgspec.Struct) or field.default is None:
        return ""
    return f"`{_value(field.default)}`"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[]" if not value else str(list(value))
    if isinstance(value, str | Path):
        return f'"{value}"'
    return f"{value}"
