"""Which JSON schemas may reach the engine? One bad schema breaks it for all requests.

The grammar compiler behind the engine raises for ever on schemas it cannot read, hangs on deep
ones and dies on very deep ones. So this lets through a list of known keywords within bounds, and
gives unbounded strings a bound, because small models often never close them.
"""

import re
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from steelyard.errors import PoolRejectedError

MAX_DEPTH = 32
MAX_BYTES = 64 * 1024
MAX_ENUM_VALUES = 256
MAX_STRING_CHARS = 512
MAX_ITEMS = 256
MAX_PATTERN_CHARS = 128

_ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "$comment",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
    ]
)
_KEYWORDS = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "$ref",
        "$defs",
        "definitions",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
        "nullable",
    ]
)
_SCHEMA_LISTS = frozenset(("anyOf", "oneOf"))
_SCHEMA_MAPS = frozenset(("properties", "$defs", "definitions"))
_LIMITS = {"maxLength": MAX_STRING_CHARS, "maxItems": MAX_ITEMS, "minItems": MAX_ITEMS}
# Groups and escapes that the grammar compiler does not know.
_UNSAFE_PATTERN = re.compile(r"\(\?|\\[bBpPk1-9AZz]")


def checked_schema(schema: dict[str, Any], default_max_string_chars: int) -> dict[str, Any]:
    """Which schema may be given to the engine for the caller's?

    Args:
        schema: JSON Schema of the caller.
        default_max_string_chars: Bound for strings without `maxLength`, `enum` or `pattern`.

    Returns:
        The schema without annotations, with `oneOf` as `anyOf` and with bounded strings.

    Raises:
        PoolRejectedError: The schema is not valid, too deep, too large, or uses a keyword that
            the engine cannot follow. The message names the place.

    >>> checked_schema({"type": "string", "title": "City"}, 40)
    {'type': 'string', 'maxLength': 40}
    """
    _check_depth(schema, "#", 0)
    try:
        size_bytes = len(msgspec.json.encode(schema))
    except (TypeError, msgspec.EncodeError) as error:
        raise PoolRejectedError(f"The JSON schema is not JSON: {error}.") from error
    if size_bytes > MAX_BYTES:
        raise PoolRejectedError(f"The JSON schema has {size_bytes} bytes; at most {MAX_BYTES}.")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = "/".join(("#", *map(str, error.absolute_path)))
        message = str(error.message)[:200]
        raise PoolRejectedError(f"The JSON schema is not valid at {place}: {message}.") from error
    return _Cleaner(schema, default_max_string_chars).clean(schema, "#")


def _check_depth(value: object, place: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise PoolRejectedError(
            f"The JSON schema is nested deeper than {MAX_DEPTH} levels at {place[:80]}."
        )
    children: list[tuple[str, object]] = []
    if isinstance(value, dict):
        children = [(str(key), item) for key, item in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(value, list):
        children = [(str(position), item) for position, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    for key, item in children:
        _check_depth(item, f"{place}/{key}", depth + 1)


class _Cleaner:
    """Copies a valid schema, keeping what the engine can follow."""

    def __init__(self, root: dict[str, Any], default_max_string_chars: int) -> None:
        self._root = root
        self._default_max_string_chars = default_max_string_chars

    def clean(self, schema: object, place: str) -> dict[str, Any]:
        """Which part of the schema at `place` may be given to the engine?"""
        if not isinstance(schema, dict):
            if schema is True:
                return {}
            raise PoolRejectedError(f"The JSON schema at {place} allows nothing.")
        cleaned: dict[str, Any] = {}
        for key, value in schema.items():  # pyright: ignore[reportUnknownVariableType]
            if key not in _ANNOTATIONS:
                self._keyword(cleaned, str(key), value, place)  # pyright: ignore[reportUnknownArgumentType]
        self._check_bounds(cleaned, place)
        is_string = cleaned.get("type") == "string"
        if is_string and not cleaned.keys() & {"maxLength", "enum", "const", "pattern"}:
            least = cleaned.get("minLength", 0)
            cleaned["maxLength"] = max(self._default_max_string_chars, least)
        return cleaned

    def _keyword(self, cleaned: dict[str, Any], key: str, value: Any, place: str) -> None:  # noqa: ANN401 - JSON
        here = f"{place}/{key}"
        if key not in _KEYWORDS:
            raise PoolRejectedError(
                f"The JSON schema uses {here}, which the embedded engine cannot follow; "
                f"allowed: {', '.join(sorted(_KEYWORDS))}."
            )
        if key in _SCHEMA_MAPS:
            cleaned[key] = {n: self.clean(s, f"{here}/{n}") for n, s in value.items()}
        elif key in _SCHEMA_LISTS:
            cleaned["anyOf"] = [self.clean(s, f"{here}/{i}") for i, s in enumerate(value)]
        elif key == "items":
            cleaned[key] = self.clean(value, here)
        elif key == "additionalProperties":
            cleaned[key] = value if isinstance(value, bool) else self.clean(value, here)
        elif key != "nullable":
            self._check_value(key, value, here)
            cleaned[key] = value

    def _check_value(self, key: str, value: Any, here: str) -> None:  # noqa: ANN401 - JSON
        if key in _LIMITS and value > _LIMITS[key]:
            raise PoolRejectedError(f"{here} is {value}; the embedded engine takes {_LIMITS[key]}.")
        if key == "enum" and not 0 < len(value) <= MAX_ENUM_VALUES:
            raise PoolRejectedError(f"{here} has {len(value)} values; 1 to {MAX_ENUM_VALUES}.")
        if key == "$ref":
            self._check_reference(value, here)
        if key == "pattern":
            _check_pattern(value, here)

    def _check_reference(self, reference: str, here: str) -> None:
        parts = reference.split("/")
        target: Any = self._root
        for part in parts[1:]:
            target = target.get(part) if isinstance(target, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        is_definition = len(parts) == 3 and parts[1] in {"$defs", "definitions"}
        if parts[0] != "#" or not (is_definition or reference == "#") or target is None:
            raise PoolRejectedError(
                f"{here} is {reference[:80]!r}; it must name an entry as '#/$defs/NAME'."
            )

    def _check_bounds(self, schema: dict[str, Any], place: str) -> None:
        for low, high in (
            ("minLength", "maxLength"),
            ("minItems", "maxItems"),
            ("minimum", "maximum"),
        ):
            if low in schema and high in schema and schema[low] > schema[high]:
                raise PoolRejectedError(f"The JSON schema at {place} allows nothing: {low}>{high}.")
        if schema.get("minLength", 0) > MAX_STRING_CHARS:
            raise PoolRejectedError(f"{place}/minLength is above {MAX_STRING_CHARS}.")


def _check_pattern(pattern: str, here: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise PoolRejectedError(f"{here} is not a regular expression: {error}.") from error
    if len(pattern) > MAX_PATTERN_CHARS or _UNSAFE_PATTERN.search(pattern):
        raise PoolRejectedError(
            f"{here} is too long or uses look-around, named groups, back-references, word "
            "boundaries or classes that the embedded engine cannot follow."
        )
