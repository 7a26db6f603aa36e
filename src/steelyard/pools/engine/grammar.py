"""A JSON schema as a grammar without white space, so that small models cannot run away in it.

The engine's own translation of schemas allows any white space between tokens, and a model of 135M
parameters often answers with line breaks until its limit. This one covers what agents use; for the
rest (patterns, number ranges, long strings) the caller falls back on the engine's translation.

Notation: the EBNF of https://github.com/mlc-ai/xgrammar (that of llama.cpp's GBNF).
"""

import itertools
from collections.abc import Iterable
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

MAX_REPEATED_CHARS = 128
_MAX_INTEGER_RANGE = 100
_KEY = '"\\"" [a-zA-Z0-9_]{1,24} "\\""'
_DEFAULT_MAX_ITEMS = 32
_MAX_RULES = 2000

_CHAR = r'([^"\\\x00-\x1f] | "\\" ["\\/bfnrt])'
_INTEGER = '"-"? ("0" | [1-9] [0-9]{0,14})'
_NUMBER = f'{_INTEGER} ("." [0-9]{{1,8}})? ([eE] [-+]? [0-9]{{1,2}})?'
_IGNORED = frozenset(("$defs", "definitions"))
_KEYS_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}


class UncoveredSchemaError(Exception):
    """The schema uses something that this translation does not cover."""


def schema_grammar(schema: dict[str, Any], default_max_string_chars: int) -> str | None:
    r"""Which EBNF grammar describes exactly the compact JSON texts that follow the schema?

    Args:
        schema: A schema out of `checked_schema`.
        default_max_string_chars: Bound for strings in places that allow anything.

    Returns:
        The grammar with the rule `root`; None when the schema is not covered.

    >>> print(schema_grammar({"enum": ["yes", 1]}, 10))
    root ::= "\"yes\"" | "1"
    """
    translation = _Translation(schema, default_max_string_chars)
    try:
        translation.rules["root"] = ""
        translation.rules["root"] = translation.expression(schema)
    except (UncoveredSchemaError, RecursionError):
        return None
    return "\n".join(f"{name} ::= {body}" for name, body in translation.rules.items())


def _literal(text: str) -> str:
    """The EBNF terminal that stands for a text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _one_of(texts: Iterable[str]) -> str:
    r"""The EBNF expression for any of some texts: a tree in which no two branches begin alike.

    OpenVINO GenAI 2026.4 merges alternatives that begin alike: of `"a = x + 1" | "b = x - 1"`
    behind a common prefix it also lets `a = x - 1` through (seen in a fifth of all answers).

    >>> print(_one_of(["car", "cat", "ca", "dog"]))
    "ca" ("" | "r" | "t") | "dog"
    """
    branches: list[str] = []
    for _, alike in itertools.groupby(sorted(set(texts)), key=lambda text: text[:1]):
        group = list(alike)
        # Sorted: what the first and the last have in common, all have.
        pairs = zip(group[0], group[-1], strict=False)
        prefix = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        branches.append(
            _literal(prefix)
            if len(group) == 1
            else f"{_literal(prefix)} ({_one_of(text[len(prefix) :] for text in group)})"
        )
    return " | ".join(branches)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _Translation:
    """Rules collected on the way through a schema."""

    def __init__(self, root: dict[str, Any], default_max_string_chars: int) -> None:
        self._root = root
        self._default_max_string_chars = default_max_string_chars
        self.rules: dict[str, str] = {}

    def expression(self, schema: dict[str, Any]) -> str:
        """Which right-hand side describes the schema?"""
        keys = schema.keys() - _IGNORED
        if "$ref" in keys:
            return self._only(keys, {"$ref"}) or self._reference(schema["$ref"])
        if "enum" in keys or "const" in keys:
            return self._choices(schema)
        if "anyOf" in keys:
            self._only(keys, {"anyOf"})
            return " | ".join(self._rule(option) for option in schema["anyOf"])
        kinds = self._types(schema, keys)
        if not kinds:
            return self._anything(2)
        allowed = {"type"}.union(*(_KEYS_OF_TYPE[kind] for kind in kinds))
        self._only(keys, allowed)
        return " | ".join(f"({self._typed(kind, schema)})" for kind in kinds)

    @staticmethod
    def _only(keys: set[str], allowed: set[str]) -> str:
        if keys - allowed:
            raise UncoveredSchemaError(str(sorted(keys - allowed)))
        return ""

    @staticmethod
    def _types(schema: dict[str, Any], keys: set[str]) -> list[str]:
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return [str(kind) for kind in kinds]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if kinds is not None:
            return [str(kinds)]
        if not keys:
            return []
        for kind in ("object", "array"):
            if keys <= _KEYS_OF_TYPE[kind]:
                return [kind]
        raise UncoveredSchemaError(str(sorted(keys)))

    def _rule(self, schema: dict[str, Any]) -> str:
        return self._add(self.expression(schema))

    def _add(self, body: str) -> str:
        if len(self.rules) > _MAX_RULES:
            raise UncoveredSchemaError("too many rules")
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name

    def _reference(self, reference: str) -> str:
        if reference == "#":
            return "root"
        _, section, entry = reference.split("/")
        # Letters and digits alone: llama.cpp takes no underscore in a rule's name.
        kind = "def" if section == "$defs" else "definition"
        rule = f"{kind}{list(self._root[section]).index(entry)}"
        if rule not in self.rules:
            self.rules[rule] = ""
            self.rules[rule] = self.expression(self._root[section][entry])
        return rule

    def _choices(self, schema: dict[str, Any]) -> str:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        # The other keywords count as well; definitions have to stay in reach.
        whole = {**{k: self._root[k] for k in _IGNORED if k in self._root}, **schema}
        validator: Any = Draft202012Validator(whole)
        valid = [value for value in values if validator.is_valid(value)]
        if not valid:
            raise UncoveredSchemaError("nothing is allowed")
        return _one_of(_json(value) for value in valid)

    def _typed(self, kind: str, schema: dict[str, Any]) -> str:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema.get("minLength", 0), schema.get("maxLength"))
            case "integer":
                return self._integer(schema)
            case "number":
                if schema.keys() & {"minimum", "maximum"}:
                    raise UncoveredSchemaError("a range of numbers")
                return _NUMBER
            case _:
                return '"true" | "false"' if kind == "boolean" else '"null"'

    def _string(self, least: int, most: int | None) -> str:
        # Repetition costs compile time: 0.65 s for 96 characters, 10 s for 256 (measured).
        most = most if most is not None else 0
        if most == 0:
            return f'"\\"" {_CHAR}* "\\""' if least == 0 else self._uncovered("an open string")
        if most > MAX_REPEATED_CHARS:
            raise UncoveredSchemaError("a long string")
        name = f"s{least}x{most}"
        self.rules[name] = f'"\\"" {_CHAR}{{{least},{most}}} "\\""'
        return name

    @staticmethod
    def _uncovered(reason: str) -> str:
        raise UncoveredSchemaError(reason)

    def _integer(self, schema: dict[str, Any]) -> str:
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is None and high is None:
            return _INTEGER
        if low is None or high is None or high - low > _MAX_INTEGER_RANGE:
            raise UncoveredSchemaError("a range of integers")
        values = range(-int(-low // 1), int(high // 1) + 1)
        if not values:
            raise UncoveredSchemaError("nothing is allowed")
        return _one_of(str(value) for value in values)

    def _array(self, schema: dict[str, Any]) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        most = max(_DEFAULT_MAX_ITEMS, least) if most is None else most
        item = self._rule(schema.get("items", {}))
        if most == 0:
            return '"[]"'
        some = f'"[" {item} ("," {item}){{{max(0, least - 1)},{most - 1}}} "]"'
        return some if least > 0 else f'"[]" | {some}'

    def _object(self, schema: dict[str, Any]) -> str:
        properties: dict[str, Any] = schema.get("properties", {})
        required: list[str] = schema.get("required", [])
        if any(name not in properties for name in required):
            raise UncoveredSchemaError("a required property without a schema")
        if not properties:
            return self._map(schema.get("additionalProperties", True))
        # Extra properties are allowed by many schemas and asked for by none: left out.
        after_first, after_more = '"}"', '"}"'
        for name, inner in reversed(properties.items()):
            pair = f"{_literal(msgspec.json.encode(name).decode() + ':')} {self._rule(inner)}"
            first, more = f"{pair} {after_more}", f'"," {pair} {after_more}'
            if name not in required:
                first, more = f"{first} | {after_first}", f"{more} | {after_more}"
            after_first, after_more = self._add(first), self._add(more)
        return f'"{{" {after_first}'

    def _map(self, values: bool | dict[str, Any]) -> str:
        if values is False:
            return '"{}"'
        value = self._rule({} if values is True else values)
        pair = f'{_KEY} ":" {value}'
        return f'"{{}}" | "{{" {pair} ("," {pair}){{0,31}} "}}"'

    def _anything(self, levels: int) -> str:
        """Any value, nested to so many levels: deeper is legal, but no model needs it."""
        string = self._string(0, min(self._default_max_string_chars, MAX_REPEATED_CHARS))
        scalar = f'{string} | ({_NUMBER}) | "true" | "false" | "null"'
        if levels == 0:
            return scalar
        value = f"any{levels - 1}"
        if value not in self.rules:
            self.rules[value] = ""
            self.rules[value] = self._anything(levels - 1)
        pair = f'{_KEY} ":" {value}'
        return (
            f'{scalar} | "[]" | "[" {value} ("," {value}){{0,31}} "]" | "{{}}" | '
            f'"{{" {pair} ("," {pair}){{0,31}} "}}"'
        )
