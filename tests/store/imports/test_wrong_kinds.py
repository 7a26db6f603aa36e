"""Whatever kind of value stands wherever in a foreign file: it is read, or refused in one line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steelyard.errors import WorkloadError
from steelyard.store.imports.read import import_workload

_OTHER_KINDS: tuple[Any, ...] = (None, True, -1, 2.5, 10**30, "", "x", "nan", [], [1], {}, {"a": 1})


def _attribute(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"key": key, "value": value}


_CALL = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "name": "chat m",
    "startTimeUnixNano": "1700000000000000000",
    "endTimeUnixNano": "1700000001000000000",
    "attributes": [
        _attribute("gen_ai.operation.name", {"stringValue": "chat"}),
        _attribute("gen_ai.usage.input_tokens", {"intValue": "100"}),
        _attribute("gen_ai.usage.output_tokens", {"intValue": "7"}),
    ],
}
_FILES: dict[str, Any] = {
    "otlp": {
        "resourceSpans": [
            {
                "resource": {"attributes": [_attribute("service.name", {"stringValue": "a"})]},
                "scopeSpans": [{"spans": [_CALL]}],
            }
        ]
    },
    "litellm": [
        {
            "request_id": "c", "call_type": "acompletion", "prompt_tokens": 100,
            "completion_tokens": 20, "startTime": "2026-11-23T10:00:00Z",
            "endTime": "2026-11-23T10:00:02Z", "model": "m", "cache_hit": "False",
            "metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 3}}},
        }
    ],
    "langfuse": [
        {
            "id": "b", "type": "GENERATION", "traceId": "t", "name": "plan", "model": "m",
            "startTime": "2026-11-23T10:00:00Z", "endTime": "2026-11-23T10:00:01Z",
            "usageDetails": {"input": 30, "output": 5, "input_cached_tokens": 70},
        }
    ],
    "requests": [
        {
            "input_lens": [10, 20], "output_lens": [3, 4], "start_times": [0.0, 1.5],
            "ttfts": [0.1, 0.1], "itls": [[0.01, 0.01], [0.01]], "errors": ["", ""],
            "request_throughput": 2.0, "model_id": "m",
        },
    ],
}  # fmt: skip
_MOONCAKE = [{"timestamp": 0, "input_length": 900, "output_length": 9, "hash_ids": [1, 2]}]


def _changed(held: Any) -> Iterator[Any]:
    """The value with one part of it replaced by a value of another kind, for every part."""
    yield from _OTHER_KINDS
    if isinstance(held, dict):
        mapping = msgspec.convert(held, dict[str, Any])
        for name, part in mapping.items():
            yield from ({**mapping, name: other} for other in _changed(part))
    elif isinstance(held, list):
        row = msgspec.convert(held, list[Any])
        for at, part in enumerate(row):
            yield from ([*row[:at], other, *row[at + 1 :]] for other in _changed(part))


@pytest.mark.parametrize(
    ("form", "held"), [*_FILES.items(), ("requests", _MOONCAKE)], ids=[*_FILES, "mooncake"]
)
def test_a_value_of_another_kind_is_read_or_refused_in_one_line(
    form: str, held: Any, tmp_path: Path
) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(held), encoding="utf-8")
    assert import_workload(path, form).workload.tasks
    refused: list[str] = []
    for changed in _changed(held):
        path.write_text(json.dumps(changed), encoding="utf-8")
        try:
            import_workload(path, form)
        except WorkloadError as error:
            refused.append(str(error))
    assert refused
    assert not [told for told in refused if "\n" in told]
