"""`steelyard traces export`: the spans of a recorded log."""

import logging
from pathlib import Path

import msgspec

import steelyard
from steelyard.cli.telemetry import pool_addresses
from steelyard.config.settings import load_settings
from steelyard.errors import ConfigError, MissingExtraError
from steelyard.store.sqlite_log import read_events
from steelyard.telemetry.fold import spans_of
from steelyard.telemetry.otlp_json import write_spans


def run_traces_export(log: Path, to: str, config: Path | None, *, as_json: bool = False) -> None:
    """Send or write the spans of a log, and tell how many there were.

    Args:
        log: An event log.
        to: Base URL of a collector, or a file that ends in `.json`.
        config: The configuration that the log was recorded with, for the addresses of endpoints;
            None leaves them out.
        as_json: One JSON object instead of a sentence.

    Raises:
        SteelyardError: The log cannot be read, or nobody takes the spans.
    """
    addresses = {} if config is None else pool_addresses(load_settings(config))
    spans = spans_of(read_events(log), addresses)
    if to.startswith(("http://", "https://")):
        try:
            from steelyard.telemetry.sdk import send_spans
        except ImportError as error:
            raise MissingExtraError(
                "sending spans needs OpenTelemetry's SDK; pip install 'steelyard[otel]', or write "
                "a file: --to spans.json"
            ) from error
        # The exporter logs each of its retries; what comes of them is told in one line.
        quiet = logging.getLogger("opentelemetry")
        level = quiet.level
        quiet.setLevel(logging.CRITICAL + 1)
        try:
            count = send_spans(to, spans)
        finally:
            quiet.setLevel(level)
    elif to.endswith(".json"):
        count = write_spans(Path(to), spans, steelyard.__version__)
    else:
        raise ConfigError(f"--to {to!r} is neither http(s):// URL nor a file that ends in .json")
    told = msgspec.json.encode({"spans": count, "to": to}).decode()
    print(told if as_json else f"{count} spans to {to}")
