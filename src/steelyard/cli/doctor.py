"""`steelyard doctor`: is everything there that a run needs? A line each, with the cure."""

import sys
from pathlib import Path

import msgspec
from rich.console import Console

from steelyard.cli.checks import Check, State
from steelyard.cli.checks_machine import (
    clock_checks,
    engine_checks,
    processor_checks,
    sandbox_checks,
)
from steelyard.cli.checks_services import pool_checks, port_checks, store_checks
from steelyard.config.settings import Settings, load_settings
from steelyard.report.format import NONE
from steelyard.report.grid import Grid, columns
from steelyard.report.tables import print_grid


def run_doctor(config: Path | None, *, as_json: bool) -> bool:
    """Look at everything and print it.

    Args:
        config: Whose store, port and pools are looked at; None for the defaults.
        as_json: Print one JSON object.

    Returns:
        Whether nothing failed.

    Raises:
        ConfigError: The configuration cannot be read.
    """
    settings = Settings() if config is None else load_settings(config)
    found = [
        *engine_checks(),
        *processor_checks(),
        *sandbox_checks(),
        *store_checks(settings.store),
        *port_checks(settings.gateway),
        *clock_checks(),
        *pool_checks(settings),
    ]
    if as_json:
        fine = _count(found, "failure") == 0
        print(msgspec.json.encode({"ok": fine, "checks": found}).decode())
    else:
        _print(found)
    return _count(found, "failure") == 0


def _count(found: list[Check], state: State) -> int:
    return sum(one.state == state for one in found)


def _print(found: list[Check]) -> None:
    grid = Grid(
        title="What this machine has",
        origin=None,
        columns=columns(("", "of", "what"), (), ("found", "cure")),
        rows=tuple((one.state, one.area, one.name, one.told, one.cure or NONE) for one in found),
        note=f"{_count(found, 'failure')} failures, {_count(found, 'warning')} warnings",
    )
    print_grid(grid, Console(file=sys.stdout))
