from opentelemetry.semconv._incubating.attributes import (
    cloud_attributes,
    gen_ai_attributes,
    server_attributes,
)
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes

from steelyard.telemetry import names

_PACKAGES = (cloud_attributes, gen_ai_attributes, server_attributes, error_attributes)


def _values(*modules: object) -> set[str]:
    return {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }


def test_every_name_that_is_not_ours_is_one_of_the_conventions() -> None:
    known = _values(*_PACKAGES, gen_ai_metrics)
    used = {one for one in _values(names) if not one.startswith("steelyard")}
    assert len(used) > 15
    assert used - known == set()


def test_operations_are_those_of_the_conventions() -> None:
    known = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}  # pyright: ignore[reportDeprecated]
    assert {"chat", "text_completion", "embeddings", "execute_tool", "invoke_agent"} <= known
