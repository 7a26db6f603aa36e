"""Plain values as YAML text; strings are always quoted, so that none is read as another type."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Yaml: TypeAlias = "str | int | float | bool | Sequence[Yaml] | Mapping[str, Yaml] | None"

_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
# YAML 1.1, which many parsers still speak, reads these as truth values or nothing.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def yaml_text(documents: Sequence[Yaml], comment: str) -> str:
    """How do these documents look as one YAML file?

    Args:
        documents: Nested mappings, lists and scalars.
        comment: Lines for the top of the file.

    Returns:
        YAML 1.2; scalars are written as JSON, which YAML contains.

    >>> print(yaml_text([{"a": [1, {"b": "on"}], "c": {}}], "Why."), end="")
    # Why.
    a:
      - 1
      - b: "on"
    c: {}
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "---\n".join("\n".join(_lines(one)) + "\n" for one in documents)


def _lines(value: Yaml) -> list[str]:
    if isinstance(value, Mapping) and value:
        lines: list[str] = []
        for key, inner in value.items():
            lines.extend(_entry(f"{_key(key)}:", inner))
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [line for inner in value for line in _item(inner)]
    return [json.dumps(value)]


def _key(key: str) -> str:
    plain = _PLAIN_KEY.match(key) and key.lower() not in _WORDS
    return key if plain else json.dumps(key)


def _entry(key: str, value: Yaml) -> list[str]:
    inner = _lines(value)
    if len(inner) == 1 and not _is_block(value):
        return [f"{key} {inner[0]}"]
    return [key, *(f"  {line}" for line in inner)]


def _item(value: Yaml) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _is_block(value: Yaml) -> bool:
    return isinstance(value, (Mapping, list, tuple)) and len(value) > 0
