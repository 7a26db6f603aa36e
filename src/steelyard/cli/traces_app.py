"""`steelyard traces ...`: the commands; `steelyard.cli.traces` does the work."""

from pathlib import Path
from typing import Annotated

import typer

traces_app = typer.Typer(
    help="What happened, as traces of OpenTelemetry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@traces_app.callback()
def _traces() -> None:
    """What happened, as traces of OpenTelemetry."""


@traces_app.command()
def export(
    log: Annotated[Path, typer.Argument(help="SQLite file of a store.")],
    to: Annotated[
        str, typer.Option("--to", help="Base URL of a collector (OTLP/HTTP), or FILE.json.")
    ] = "spans.json",
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of the gateway; adds addresses of endpoints."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send the spans of a recorded log to a collector, or write them as OTLP JSON."""
    from steelyard.cli.traces import run_traces_export

    run_traces_export(log, to, config, as_json=as_json)
