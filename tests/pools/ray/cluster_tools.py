"""Tools that the tests run on nodes of a cluster."""

import time
from pathlib import Path


def note_and_wait(folder: str, mark: str, gate: str) -> str:
    """Note that it runs, and wait until a file is there."""
    Path(folder, mark).write_text("runs", encoding="ascii")
    end_s = time.monotonic() + 120.0
    while not Path(gate).exists() and time.monotonic() < end_s:
        time.sleep(0.02)
    return mark


def square(number: int) -> int:
    """A short call."""
    return number * number
