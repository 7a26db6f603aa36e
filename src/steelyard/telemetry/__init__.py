"""The event log as OpenTelemetry sees it: spans and metrics, folded from the same events."""
