"""What the same request is in the words of different engines.

A pool whose engine is named gets a request in that engine's words; every other field, and every
request to a pool without a named engine, goes out untouched.

| engine | limit of the answer | seed | JSON schema | source |
|---|---|---|---|---|
| openai | max_completion_tokens | seed | response_format | API reference: max_tokens is deprecated
  and refused by reasoning models |
| vllm | both | seed | structured_outputs; response_format | docs.vllm.ai, Structured Outputs:
  guided_* were removed in 0.12 |
| sglang | both | seed | response_format; regex, ebnf | docs.sglang.ai, Structured Outputs |
| llama.cpp | max_tokens | seed | response_format | ggml-org/llama.cpp#19831: max_completion_tokens
  is read since 2026-02 alone, and was ignored before |
| ollama | max_tokens | seed | response_format | docs.ollama.com/api/openai-compatibility |
| mistral | max_tokens | random_seed | response_format | docs.mistral.ai/api: unknown fields are
  refused |
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import msgspec

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import JsonObject, LlmRequest, RelayRequest
from steelyard.pools.wire import body_of_fields

Engine = Literal["", "openai", "vllm", "sglang", "llama.cpp", "ollama", "mistral"]

_OLD_LIMIT = {"max_completion_tokens": "max_tokens"}
_RENAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "openai": {"max_tokens": "max_completion_tokens"},
        "llama.cpp": _OLD_LIMIT,
        "ollama": _OLD_LIMIT,
        "mistral": {**_OLD_LIMIT, "seed": "random_seed"},
    }
)
_KINDS = ("json", "regex", "choice", "grammar")
_CONSTRAINT_FIELDS = frozenset(("structured_outputs", *(f"guided_{kind}" for kind in _KINDS)))
# What else than a schema an engine can be held to, by its own names.
_CONSTRAINTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"sglang": {"regex": "regex", "grammar": "ebnf"}}
)


def constraints(document: JsonObject) -> JsonObject:
    """To what is an answer to be held, in vLLM's words of before and after 0.12?

    Args:
        document: A chat request.

    Returns:
        Of `json`, `regex`, `choice` and `grammar` those that are set.

    >>> constraints({"guided_choice": ["a", "b"]})
    {'choice': ['a', 'b']}
    """
    if _CONSTRAINT_FIELDS.isdisjoint(document):
        return {}
    asked: Any = document.get("structured_outputs")
    found: JsonObject = cast("JsonObject", asked) if isinstance(asked, dict) else {}
    named = {kind: found.get(kind) or document.get(f"guided_{kind}") for kind in _KINDS}
    return {kind: value for kind, value in named.items() if value}


def schema_of(document: JsonObject) -> JsonObject | None:
    """Which JSON schema do vLLM's own fields ask for? None for none, and for one that is no object.

    Args:
        document: A chat request.
    """
    schema: Any = constraints(document).get("json")
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except msgspec.DecodeError:
            return None
    return cast("JsonObject", schema) if isinstance(schema, dict) else None


def in_dialect(document: JsonObject, engine: Engine) -> JsonObject:
    """Which chat request says the same to an engine?

    Args:
        document: The request.
        engine: Who is asked; empty for an unknown one.

    Returns:
        The request, a new one where something had to change.

    Raises:
        PoolRejectedError: The engine cannot be held to what is asked.

    >>> in_dialect({"max_completion_tokens": 9, "seed": 1}, "mistral")
    {'max_tokens': 9, 'random_seed': 1}
    """
    if not engine:
        return document
    renames = _RENAMES.get(engine, {})
    if not renames.keys().isdisjoint(document):
        document = _renamed(document, renames)
    asked = constraints(document)
    if not asked or (engine == "vllm" and "structured_outputs" in document):
        return document
    return _constrained(document, asked, engine)


def _renamed(document: JsonObject, renames: Mapping[str, str]) -> JsonObject:
    body = {renames.get(name, name): value for name, value in document.items()}
    for old, new in renames.items():
        both = [document[name] for name in (new, old) if document.get(name) is not None]
        # Of the two limits the newer one counts, as in the step's reservation; else the engine's.
        if len(both) > 1:
            body[new] = both[old == "max_completion_tokens"]
        elif both:
            body[new] = both[0]
    return body


def _constrained(document: JsonObject, asked: JsonObject, engine: Engine) -> JsonObject:
    own = {f"guided_{kind}" for kind in _KINDS} | {"structured_outputs"}
    body = {name: value for name, value in document.items() if name not in own}
    if engine == "vllm":
        return {**body, "structured_outputs": asked}
    names = _CONSTRAINTS.get(engine, {})
    for kind, value in asked.items():
        if kind in names:
            body[names[kind]] = value
        elif kind != "json" or (schema := schema_of(document)) is None:
            raise PoolRejectedError(
                f"An answer cannot be held to guided_{kind} by {engine}; send a JSON schema as "
                "response_format."
            )
        elif "response_format" not in body:
            held = {"name": "answer", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": held}
    return body


def spoken_request(request: LlmRequest, engine: Engine) -> LlmRequest:
    """A request in an engine's words.

    Raises:
        PoolRejectedError: The engine cannot be held to what is asked.
    """
    if not engine or request.kind != "chat":
        return request
    before = request.raw_body or body_of_fields(request)
    after = in_dialect(before, engine)
    return request if after is before else msgspec.structs.replace(request, raw_body=after)


def spoken_relay(asked: RelayRequest, engine: Engine) -> RelayRequest:
    """A request that is handed on, in an engine's words; the caller's bytes if those are the same.

    Raises:
        PoolRejectedError: The engine cannot be held to what is asked.
    """
    if asked.path:
        return asked
    request = spoken_request(asked.request, engine)
    if request is asked.request:
        return asked
    body = msgspec.json.encode(request.raw_body)
    return msgspec.structs.replace(asked, request=request, body=body)
