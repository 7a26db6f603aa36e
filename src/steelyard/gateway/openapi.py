"""/openapi.json: what the gateway serves, in the words of OpenAPI 3.1.

Requests are described by the structs that parse them. Answers are described as far as this code
writes them; an endpoint's answer is handed on and may hold more. `/api/tasks` is not described.
"""

from typing import Any

import msgspec

from steelyard.gateway.errors_http import ERROR_RESPONSES
from steelyard.gateway.rerank import RERANK_PATH, RerankRequest
from steelyard.gateway.responses import RESPONSES_PATH
from steelyard.gateway.responses_wire import ResponsesRequest
from steelyard.gateway.wire import ChatRequest, CompletionRequest, EmbeddingsRequest

_Json = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_OBJECTS: _Json = {"type": "array", "items": {"type": "object"}}
# The one that only a request can get: of the HTTP layer, not of an error class.
_REQUEST_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 431)


def _object(**properties: _Json) -> _Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: str) -> _Json:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}}
    return _object(object={"const": "list"}, data=items)


_USAGE = _object(prompt_tokens=_COUNT, completion_tokens=_COUNT, total_tokens=_COUNT)
_ANSWERS: _Json = {
    "Error": _object(
        error={
            **_object(message=_TEXT, type=_TEXT),
            "description": "OpenAI's shape; `code` is stable.",
        }
    ),
    "Model": _object(id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT),
    "ModelList": _list("Model"),
    "ChatCompletion": _object(id=_TEXT, choices=_OBJECTS, usage=_USAGE),
    "Completion": _object(id=_TEXT, choices=_OBJECTS, usage=_USAGE),
    "Embedding": _object(index=_COUNT, embedding={"type": ["array", "string"]}),
    "EmbeddingList": _list("Embedding"),
    "Response": _object(
        id=_TEXT,
        object={"const": "response"},
        status={"enum": ["completed", "incomplete"]},
        output=_OBJECTS,
    ),
    "DeletedResponse": _object(id=_TEXT, deleted={"const": True}),
    "Ranking": _object(
        results={
            "type": "array",
            "items": _object(index=_COUNT, relevance_score={"type": "number"}),
        }
    ),
    "Alive": _object(status={"const": "alive"}),
    "Ready": _object(
        ready={"type": "boolean"}, stopping={"type": "boolean"}, replicas_up={"type": "object"}
    ),
}

_POSTS: dict[str, tuple[type[msgspec.Struct], str, bool, str]] = {
    "/v1/chat/completions": (ChatRequest, "ChatCompletion", True, "Answer a chat"),
    "/v1/completions": (CompletionRequest, "Completion", True, "Continue a text"),
    "/v1/embeddings": (EmbeddingsRequest, "EmbeddingList", False, "Turn texts into vectors"),
    RESPONSES_PATH: (ResponsesRequest, "Response", True, "Answer, with items and typed events"),
    RERANK_PATH: (RerankRequest, "Ranking", False, "Order documents by a query"),
}


def openapi_document(version: str) -> _Json:
    """What does the gateway serve?

    Args:
        version: Version of the package.

    Returns:
        An OpenAPI 3.1 document.

    >>> sorted(openapi_document("1")["paths"])[:2]
    ['/healthz', '/metrics']
    """
    kinds = [kind for kind, _, _, _ in _POSTS.values()]
    template = "#/components/schemas/{name}"
    _, components = msgspec.json.schema_components(kinds, ref_template=template)
    paths: _Json = {path: {"post": _post(path)} for path in _POSTS}
    paths |= {
        "/v1/models": {"get": _get("Which models are served?", "ModelList")},
        "/v1/models/{model}": {"get": _get("Is a model served?", "Model", "model")},
        RESPONSES_PATH + "/{response_id}": {
            "get": _get("What was answered?", "Response", "response_id"),
            "delete": _get("Forget an answer", "DeletedResponse", "response_id"),
        },
        "/healthz": {"get": _get("Does the process answer?", "Alive")},
        "/readyz": {"get": _ready()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _plain("This document", {"schema": {"type": "object"}})},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Steelyard gateway", "version": version},
        "paths": paths,
        "components": {
            "schemas": {**components, **_ANSWERS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # Without configured keys, everybody on the machine may call.
        "security": [{"key": []}, {}],
    }


def _post(path: str) -> _Json:
    kind, answer, streams, summary = _POSTS[path]
    content: _Json = {"application/json": {"schema": _ref(answer)}}
    if streams:
        content["text/event-stream"] = {"schema": _TEXT}
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(kind.__name__)}},
        },
        "responses": {"200": {"description": "The answer", "content": content}, **_errors()},
    }


def _get(summary: str, answer: str, parameter: str = "") -> _Json:
    operation = _plain(summary, {"schema": _ref(answer)})
    if parameter:
        where = {"name": parameter, "in": "path", "required": True, "schema": _TEXT}
        operation["parameters"] = [where]
    return operation


def _plain(summary: str, media: _Json, kind: str = "application/json") -> _Json:
    told = {"description": "The answer", "content": {kind: media}}
    return {"summary": summary, "responses": {"200": told, **_errors()}}


def _ready() -> _Json:
    operation = _get("Is a pool up, and the store there?", "Ready")
    operation["responses"]["503"] = operation["responses"]["200"]
    return operation


def _metrics() -> _Json:
    return _plain("Counters, in Prometheus' text format", {"schema": _TEXT}, "text/plain")


def _errors() -> _Json:
    statuses = {status for status, _ in ERROR_RESPONSES.values()} | {*_REQUEST_STATUSES}
    media = {"application/json": {"schema": _ref("Error")}}
    told = {"description": "What is wrong, and the cure", "content": media}
    return {str(status): told for status in sorted(statuses)}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}
