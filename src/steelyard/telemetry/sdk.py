"""Spans as the official SDK has them, and its exporter for OTLP over HTTP.

The SDK and its exporter are the extra `steelyard[otel]`; import this where telemetry is wanted and
nowhere else. They read the rest of OpenTelemetry's environment variables themselves:
`OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`, `_CERTIFICATE` and `_COMPRESSION`,
`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`, `OTEL_BSP_*`, `OTEL_METRIC_EXPORT_INTERVAL`.
"""

from collections.abc import Iterable
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from steelyard.errors import PoolUnavailableError
from steelyard.telemetry.span import Span

_BATCH_SPANS = 512
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SCOPE = InstrumentationScope("steelyard", version("steelyard"))


def resource() -> Resource:
    """Who tells all this? `steelyard`, unless OpenTelemetry's environment variables say more."""
    # What the environment says is merged over it by `create`.
    told = Resource.create()
    unnamed = str(told.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return told.merge(Resource({SERVICE_NAME: "steelyard"})) if unnamed else told


def signal_url(endpoint: str, signal: str) -> str | None:
    """Where is a signal sent? None leaves it to the environment.

    Args:
        endpoint: Base URL of the collector; empty where the environment has it.
        signal: `traces` or `metrics`.

    >>> signal_url("http://127.0.0.1:4318/", "traces")
    'http://127.0.0.1:4318/v1/traces'
    """
    return f"{endpoint.rstrip('/')}/v1/{signal}" if endpoint else None


def readable(span: Span, told_by: Resource) -> ReadableSpan:
    """A span as exporters of the SDK take it.

    Args:
        span: The span.
        told_by: Of this process.
    """
    links = [_context(span.linked_trace_id, span.linked_span_id)] if span.linked_span_id else []
    parent = _context(span.trace_id, span.parent_span_id) if span.parent_span_id else None
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=parent,
        resource=told_by,
        attributes=span.attributes,
        links=[Link(one) for one in links],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error_code) if span.error_code else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=SCOPE,
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


def send_spans(endpoint: str, spans: Iterable[Span]) -> int:
    """Send spans and wait until all are taken.

    Args:
        endpoint: Base URL of the collector.
        spans: The spans.

    Returns:
        How many there were.

    Raises:
        PoolUnavailableError: The collector does not take them.
    """
    exporter: SpanExporter = OTLPSpanExporter(endpoint=signal_url(endpoint, "traces"))
    told_by, batch, count = resource(), list[ReadableSpan](), 0
    try:
        for span in spans:
            batch.append(readable(span, told_by))
            count += 1
            if len(batch) == _BATCH_SPANS:
                _send(exporter, batch, endpoint)
                batch = []
        if batch:
            _send(exporter, batch, endpoint)
    finally:
        exporter.shutdown()
    return count


def _send(exporter: SpanExporter, batch: list[ReadableSpan], endpoint: str) -> None:
    if exporter.export(batch) is not SpanExportResult.SUCCESS:
        raise PoolUnavailableError(
            f"the collector at {endpoint} did not take {len(batch)} spans; check that it listens "
            "there for OTLP over HTTP (port 4318)"
        )


class SpanSender:
    """Sends spans in batches, in a thread of its own; those that find its queue full are lost.

    Args:
        endpoint: Base URL of the collector; empty leaves it to the environment.
    """

    def __init__(self, endpoint: str) -> None:
        exporter = OTLPSpanExporter(endpoint=signal_url(endpoint, "traces"))
        self._resource = resource()
        self._batches = BatchSpanProcessor(exporter)

    def send(self, span: Span) -> None:
        """Send a span with the next batch."""
        self._batches.on_end(readable(span, self._resource))

    def close(self) -> None:
        """Send what is left, and end."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]
