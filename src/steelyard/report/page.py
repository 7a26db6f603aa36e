"""What a report holds before it is written: sections of figures, tables and plots with sources."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from steelyard.report.format import NONE, count, percent, ratio, seconds, significant, usd
from steelyard.report.grid import Grid
from steelyard.report.inputs import Origin

_WRITERS: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {"USD": usd, "frac": percent, "s": seconds, "ratio": ratio}
)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where figures come from.

    Attributes:
        origin: How they came about.
        source: File, catalogue or log that they were read from.
        command: What produces them again.
    """

    origin: Origin
    source: str
    command: str

    def as_origin(self, origin: Origin) -> "Source":
        """The same file and command, for figures that came about in another way."""
        return msgspec.structs.replace(self, origin=origin)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a report.

    Attributes:
        name: What it is.
        about: Of which step, pool, provider or fleet; empty for the whole.
        value: The number, never rounded; None where there is none.
        unit: `USD`, `frac`, `s`, `ratio`, `count`, `kWh`, `GPU-hours` or another unit in words.
        where: Where it comes from.
    """

    name: str
    about: str = ""
    value: float | None
    unit: str
    where: Source

    def told(self) -> str:
        """The number for people, with its unit."""
        if self.value is None:
            return NONE
        if self.unit == "count":
            return count(round(self.value))
        write = _WRITERS.get(self.unit)
        return f"{significant(self.value)} {self.unit}" if write is None else write(self.value)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A table or a plot.

    Attributes:
        where: Where its figures come from. A table without an origin of its own mixes several; its
            heads or cells say which, and that of `where` is not shown.
        grid: The table; None for a plot.
        svg: The plot; empty for a table.
        caption: What the plot shows, units included; empty for a table.
    """

    where: Source
    grid: Grid | None = None
    svg: str = ""
    caption: str = ""

    @property
    def origin(self) -> Origin | None:
        """How all of its figures came about; None where they did so in several ways."""
        mixed = self.grid is not None and self.grid.origin is None
        return None if mixed else self.where.origin


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One heading of a report.

    Attributes:
        key: Unique on the page; links lead to it.
        title: Heading.
        lead: What is to be known first; empty if nothing.
        figures: Its numbers, for machines; tables show them to people.
        blocks: Tables and plots; empty tables are left out.
    """

    key: str
    title: str
    lead: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    blocks: tuple[Block, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report.

    Attributes:
        title: Heading.
        made: Day and time at which it was made, in words.
        about: What it is made from, one sentence.
        command: What makes it again.
        tiles: The numbers at the top.
        sections: The rest.
        assumptions: What is taken for granted, one sentence each.
    """

    title: str
    made: str
    about: str
    command: str
    tiles: tuple[Figure, ...]
    sections: tuple[Section, ...]
    assumptions: tuple[str, ...] = ()

    def figures(self) -> tuple[Figure, ...]:
        """Every number, those at the top first."""
        return (*self.tiles, *(one for section in self.sections for one in section.figures))


def table(grid: Grid, where: Source) -> Block:
    """A table with its source."""
    return Block(where=where, grid=grid)


def plot(svg: str, caption: str, where: Source) -> Block:
    """A plot with its source; it is left out where it is empty."""
    return Block(where=where, svg=svg, caption=caption)
