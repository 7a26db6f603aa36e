"""What a page of figures shows, ready to be drawn: tiles, tables, bars per day, sentences."""

import msgspec

from steelyard.report.grid import Grid


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """A figure at the top.

    Attributes:
        label: What it is.
        value: With its unit.
        note: What must be known to read it; empty if nothing.
    """

    label: str
    value: str
    note: str = ""


class DayBar(msgspec.Struct, frozen=True, kw_only=True):
    """One day.

    Attributes:
        day: In UTC, `2026-11-23`.
        value: What the bar stands for, with its unit.
        of_highest_frac: Its height.
    """

    day: str
    value: str
    of_highest_frac: float


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a page but its frame.

    Attributes:
        tiles: At the top.
        grids: Tables.
        days: Bars; empty for none.
        notes: What must be known to trust the figures.
    """

    tiles: tuple[Tile, ...] = ()
    grids: tuple[Grid, ...] = ()
    days: tuple[DayBar, ...] = ()
    notes: tuple[str, ...] = ()
