"""The reference of the HTTP interface: what /openapi.json says, /api/tasks, and the dashboard."""

import inspect
from typing import Any, NamedTuple, cast

from msgspec import Struct, structs

import steelyard
from docs_site.docstrings import entries, items, prose
from docs_site.tables import code, table
from docs_site.types import default, readable
from docs_site.units import unit
from steelyard.gateway import headers
from steelyard.gateway.openapi import openapi_document
from steelyard.gateway.settings import GatewayLimits
from steelyard.gateway.task_api import NewSignal, NewTask, TaskApi

_Json = dict[str, Any]
_TYPE_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "object",
    "null": "null",
}


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    told: str


def task_operations() -> list[Operation]:
    """What /api offers, from its routes and the docstrings behind them."""
    nothing = cast("Any", None)
    found: list[Operation] = []
    for route in TaskApi(nothing, nothing, GatewayLimits()).routes():
        path, methods = route.path.replace(":int", ""), sorted((route.methods or set()) - {"HEAD"})
        found += [Operation(method, path, _first_line(route.endpoint)) for method in methods]
    return found


def described_operations() -> list[Operation]:
    """What /openapi.json describes."""
    document = openapi_document(steelyard.__version__)
    return [
        Operation(method.upper(), path, operation["summary"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


_INTRO = """# HTTP interface

What the gateway of `steelyard up` serves. `GET /openapi.json` gives the first part to programs, as
OpenAPI 3.1. [Compatibility](../compatibility.md) says what is translated for which engine, and what
is refused.
"""
_END = """## What answers hold

Beside OpenAI's fields an answer has `steelyard`, an object with `cost_usd`: in the body, or in the
event of a stream that tells the usage. [Headers](headers.md) has the rest.

## Statuses

Errors have OpenAI's shape; [Errors](errors.md) has every class with its status and code. Beside
them the HTTP layer answers 400 (no HTTP), 401, 403, 404, 405, 408, 413 (body too long), 415 and 431
(headers too long).

## Dashboard

Every other path is a page for people, or a part of one: [dashboard](../dashboard.md).
"""
_HEADERS_INTRO = """# Headers

All are optional. A request without any is a task of its own.

## Of requests
"""
_SESSIONS = """
Sessions that other routers and agents name are read, too: see
[Compatibility](../compatibility.md#sessions-of-others).

## Of responses
"""


def page() -> str:
    """The whole page."""
    parts = [
        _INTRO,
        "## Paths\n",
        _operations(described_operations()),
        "## Durable tasks\n",
        "With keys, these need one of the file or one minted with `--control`.\n",
        _operations(task_operations()),
        _struct(NewTask),
        _struct(NewSignal),
        "## Request bodies\n",
        "Fields that are not listed are handed on to endpoints untouched.\n",
        *_bodies(),
        _END,
    ]
    return "\n".join(parts)


def headers_page() -> str:
    """The page of headers."""
    parts = [
        _HEADERS_INTRO,
        *(f"- {item}" for item in items(headers, "Request headers:")),
        _SESSIONS,
        *(f"- {item}" for item in items(headers, "Response headers:")),
        "",
    ]
    return "\n".join(parts)


def _operations(operations: list[Operation]) -> str:
    rows = [(one.method, code(one.path), one.told) for one in operations]
    return table(("method", "path", "what it answers"), rows)


def _struct(kind: type[Struct]) -> str:
    said = entries(kind)
    rows = [
        (
            code(field.encode_name),
            readable(field.type),
            default(field),
            unit(field.encode_name),
            said.get(field.name, ""),
        )
        for field in structs.fields(kind)
    ]
    head = ("field", "type", "default", "unit", "meaning")
    return f"### {kind.__name__}\n\n{prose(kind)}\n\n{table(head, rows)}"


def _bodies() -> list[str]:
    document = openapi_document(steelyard.__version__)
    schemas: _Json = document["components"]["schemas"]
    shown: list[str] = []
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body is not None:
            schema = _resolved(body["content"]["application/json"]["schema"], schemas)
            shown.append(f"### POST {code(path)}\n\n{_properties(schema, schemas)}")
    return shown


def _properties(schema: _Json, schemas: _Json) -> str:
    required = schema.get("required", [])
    rows = [
        (
            code(name),
            _type(one, schemas),
            "required" if name in required else "",
            _bounds(one),
        )
        for name, one in schema["properties"].items()
    ]
    return table(("field", "type", "needed", "bounds"), rows)


def _resolved(schema: _Json, schemas: _Json) -> _Json:
    ref = schema.get("$ref", "")
    return schemas[ref.rpartition("/")[2]] if ref else schema


def _type(schema: _Json, schemas: _Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = (_type(one, schemas) for one in schema["anyOf"])
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null")
    if "enum" in schema:
        return " or ".join(f'"{one}"' for one in schema["enum"])
    word = _TYPE_WORDS.get(str(schema.get("type")), "any JSON")
    if word == "list":
        return f"list of {_type(schema.get('items', {}), schemas)}"
    return word


_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "{} or more characters",
    "maxLength": "at most {} characters",
    "minItems": "{} or more",
    "maxItems": "at most {} of them",
}


def _bounds(schema: _Json) -> str:
    found: list[str] = []
    for one in schema.get("anyOf", [schema]):
        found += [told.format(one[key]) for key, told in _BOUNDS.items() if key in one]
    return ", ".join(found)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n\n")[0]
