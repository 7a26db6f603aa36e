"""Metrics of the GenAI conventions over OTLP, by the official SDK (extra `steelyard[otel]`).

Buckets are those that the conventions ask for.
Source: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics, read 2026-11-23.
"""

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from steelyard.domain.task import LlmCall
from steelyard.ledger.ledger import AttemptRecord
from steelyard.telemetry import names
from steelyard.telemetry.attributes import operation_of
from steelyard.telemetry.sdk import SCOPE, resource, signal_url

_DURATION_BOUNDS_S = [0.01 * 2**power for power in range(14)]
_TOKEN_BOUNDS = [4.0**power for power in range(14)]
_TTFT_BOUNDS_S = [
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
]
_TPOT_BOUNDS_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]


class Meters:
    """Counts attempts that ended, and sends what it counted from time to time.

    Args:
        endpoint: Base URL of the collector; empty leaves it to the environment.
    """

    def __init__(self, endpoint: str) -> None:
        exporter = OTLPMetricExporter(endpoint=signal_url(endpoint, "metrics"))
        reader = PeriodicExportingMetricReader(exporter)
        self._provider = MeterProvider([reader], resource())
        meter = self._provider.get_meter(SCOPE.name, SCOPE.version)
        self._duration_s = meter.create_histogram(
            names.OPERATION_DURATION,
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDS_S,
        )
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )
        self._ttft_s = meter.create_histogram(
            names.TIME_TO_FIRST_TOKEN,
            "s",
            "Time to generate first token for successful responses.",
            explicit_bucket_boundaries_advisory=_TTFT_BOUNDS_S,
        )
        self._tpot_s = meter.create_histogram(
            names.TIME_PER_OUTPUT_TOKEN,
            "s",
            "Time per output token generated after the first token for successful responses.",
            explicit_bucket_boundaries_advisory=_TPOT_BOUNDS_S,
        )
        self._cost_usd = meter.create_counter(names.COST_METRIC, "USD", "What ended attempts cost.")

    def count(self, record: AttemptRecord) -> None:
        """Take an attempt into account.

        Args:
            record: It ended.
        """
        call, usage = record.step.call, record.usage
        told: dict[str, str] = {
            names.OPERATION: operation_of(record.step),
            names.PROVIDER: names.STEELYARD_PROVIDER,
            names.POOL: record.decision.pool,
        }
        self._cost_usd.add(record.cost_usd, told)
        if isinstance(call, LlmCall):
            told[names.MODEL] = call.model
        ended = told | ({names.ERROR: record.error_code or "_OTHER"} if _failed(record) else {})
        self._duration_s.record(record.latency_s, ended)
        if not isinstance(call, LlmCall) or record.outcome != "ok":
            return
        self._tokens.record(usage.input_tokens, told | {names.TOKEN_TYPE: "input"})
        if usage.output_tokens:
            self._tokens.record(usage.output_tokens, told | {names.TOKEN_TYPE: "output"})
        self._time(record, told)

    def _time(self, record: AttemptRecord, told: dict[str, str]) -> None:
        usage, first_s = record.usage, record.usage.start_to_first_token_s
        if first_s is None or record.started_s is None:
            return
        # Queueing included, as the glossary has it.
        self._ttft_s.record(record.started_s - record.placed_s + first_s, told)
        if usage.output_tokens > 1:
            rest_s = max(0.0, usage.wall_s - first_s)
            self._tpot_s.record(rest_s / (usage.output_tokens - 1), told)

    def close(self) -> None:
        """Send what was counted, and end."""
        self._provider.shutdown()


def _failed(record: AttemptRecord) -> bool:
    return record.outcome != "ok"
