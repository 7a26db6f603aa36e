"""A collector: takes OTLP over HTTP, decodes the protobuf, and keeps what it got."""

import gzip
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from steelyard.telemetry.span import Span

_KINDS = {SpanMessage.SPAN_KIND_INTERNAL: "internal", SpanMessage.SPAN_KIND_CLIENT: "client"}


class Collector:
    """What a collector got.

    Attributes:
        spans: Spans, in order of arrival.
        services: Names of the services that sent them.
        metrics: Histograms and counters by name, the newest.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.metrics: dict[str, Any] = {}

    def take_spans(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.add(str(_attributes(group.resource.attributes)["service.name"]))
            for scope in group.scope_spans:
                self.spans += [_span(one) for one in scope.spans]

    def take_metrics(self, body: bytes) -> None:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in group.scope_metrics:
                self.metrics |= {one.name: one for one in scope.metrics}


def _span(told: SpanMessage) -> Span:
    link = told.links[0] if told.links else None
    return Span(
        trace_id=told.trace_id.hex(),
        span_id=told.span_id.hex(),
        parent_span_id=told.parent_span_id.hex(),
        name=told.name,
        kind=_KINDS[told.kind],  # type: ignore[arg-type]
        start_ns=told.start_time_unix_nano,
        end_ns=told.end_time_unix_nano,
        attributes=_attributes(told.attributes),
        error_code=told.status.message,
        linked_span_id="" if link is None else link.span_id.hex(),
        linked_trace_id="" if link is None else link.trace_id.hex(),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    def value(one: AnyValue) -> Any:
        kind = one.WhichOneof("value")
        if kind == "array_value":
            return tuple(value(inner) for inner in one.array_value.values)
        return getattr(one, str(kind))

    told: list[KeyValue] = list(pairs)
    return {one.key: value(one.value) for one in told}


@contextmanager
def collector() -> Generator[Collector, None, None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            take = {"/v1/traces": got.take_spans, "/v1/metrics": got.take_metrics}[self.path]
            take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        got = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield got
        finally:
            server.shutdown()
            thread.join()
