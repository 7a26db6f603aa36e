"""Spans as OTLP JSON: needs no library, and is what `steelyard workload convert` reads.

Source: OTLP/HTTP JSON encoding (opentelemetry.io/docs/specs/otlp, 1.7): ids in hex, 64-bit integers
as text, enumerations as numbers. Read 2026-11-23.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from steelyard.errors import ConfigError
from steelyard.telemetry.span import AttributeValue, Span

_KINDS = {"internal": 1, "client": 3}
_STATUS_ERROR = 2
SCOPE = "steelyard"


def write_spans(path: Path, spans: Iterable[Span], version: str) -> int:
    """Write spans as one export request.

    Args:
        path: A `.json` file; it is replaced once all spans are there.
        spans: The spans; they are written as they come.
        version: Of this program, for the scope.

    Returns:
        How many there were.

    Raises:
        ConfigError: The file cannot be written.
    """
    resource = msgspec.json.encode({"attributes": [_pair("service.name", SCOPE)]})
    scope = msgspec.json.encode({"name": SCOPE, "version": version})
    count = 0
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(b'{"resourceSpans":[{"resource":' + resource)
            file.write(b',"scopeSpans":[{"scope":' + scope + b',"spans":[\n')
            for span in spans:
                file.write((b",\n" if count else b"") + msgspec.json.encode(span_object(span)))
                count += 1
            file.write(b"\n]}]}]}\n")
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"spans cannot be written to {path}: {error}") from error
    finally:
        # There only where a span, such as one of a log that cannot be read, did not come.
        new.unlink(missing_ok=True)
    return count


def span_object(span: Span) -> dict[str, Any]:
    """Which JSON object is a span?

    Args:
        span: The span.
    """
    told: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_pair(name, value) for name, value in span.attributes.items()],
        "status": {"code": _STATUS_ERROR, "message": span.error_code} if span.error_code else {},
    }
    if span.parent_span_id:
        told["parentSpanId"] = span.parent_span_id
    if span.linked_span_id:
        told["links"] = [{"traceId": span.linked_trace_id, "spanId": span.linked_span_id}]
    return told


def _pair(name: str, value: AttributeValue) -> dict[str, Any]:
    return {"key": name, "value": _value(value)}


def _value(value: AttributeValue) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case _:
            return {"arrayValue": {"values": [_value(one) for one in value]}}
