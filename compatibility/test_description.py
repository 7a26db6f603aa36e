"""schemathesis over /openapi.json: no 5xx, and answers as they are described."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

load_all_checks()
# Not among them: whether each wrong value is refused. Some ranges follow from several fields.
NAMES = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "unsupported_method"),
)
# The longest answer asked for: what is tested here is the wire.
TOKENS = 4


def _within_reach(document: dict[str, Any]) -> dict[str, Any]:
    """The description with models that exist and answers that are short."""
    models = ["mock", "smollm2-135m", "all-minilm-l6-v2", "either", "no-such-model"]
    for schema in document["components"]["schemas"].values():
        fields = schema.get("properties", {})
        if "model" in schema.get("required", ()):
            fields["model"] = {"enum": models}
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if name in fields:
                fields[name] = {"type": "integer", "minimum": 1, "maximum": TOKENS}
                schema["required"] = [*schema["required"], name]
        if "n" in fields:
            fields["n"] = {"enum": [None, 1, 2]}
    return document


@pytest.fixture(scope="session")
def api(base_url: str) -> Any:
    root = base_url.removesuffix("/v1")
    document = httpx.get(f"{root}/openapi.json").raise_for_status().json()
    schema = schemathesis.openapi.from_dict(_within_reach(document))
    schema.config.update(base_url=root)
    return schema


OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/rerank"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/v1/responses/{response_id}"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
]


def test_every_operation_is_tested_below(api: Any) -> None:
    described = [operation.ok() for operation in api.get_all_operations()]
    assert {(one.method.upper(), one.path) for one in described} == set(OPERATIONS)


CALLS = [(*one, GenerationMode.POSITIVE) for one in OPERATIONS] + [
    # A path alone has no wrong values.
    (*one, GenerationMode.NEGATIVE)
    for one in OPERATIONS
    if one[0] == "POST"
]


@pytest.mark.parametrize(("method", "path", "mode"), CALLS)
def test_no_request_breaks_the_gateway(
    api: Any, base_url: str, method: str, path: str, mode: GenerationMode
) -> None:
    checks = [CHECKS.get_one(name) for name in NAMES]
    root = base_url.removesuffix("/v1")

    @given(api[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def call(case: Any) -> None:
        case.call_and_validate(base_url=root, checks=checks)

    call()
