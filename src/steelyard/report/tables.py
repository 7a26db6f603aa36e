"""Grids in a terminal: drawn tables for people, plain aligned lines in a pipe."""

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from steelyard.report.format import NONE
from steelyard.report.grid import Grid

# Sentences are read in lines of this length at least.
_WIDE_CHARS = 28
_GAP_CHARS = 2


def print_grid(grid: Grid, console: Console) -> None:
    """Show a grid on a console; nothing when it has no rows.

    Args:
        grid: The table.
        console: Where to. A terminal gets a drawn table, or a paragraph per row where it is too
            narrow for one; a pipe gets plain lines that never wrap.
    """
    if not grid.rows:
        return
    if not console.is_terminal:
        console.out("\n".join(plain_lines(grid)), highlight=False)
    elif (left := console.width - _narrowest(grid)) >= 0:
        console.print(_rich_table(grid, left))
        console.print()
    else:
        console.print(Text(_title(grid), style="bold"))
        for row in grid.rows:
            console.print(Padding(_paragraph(grid, row), (0, 0, 0, 2)))
        console.print(Text(grid.note, style="dim"), end="\n\n" if grid.note else "\n")


def _narrowest(grid: Grid) -> int:
    """How many characters wide must a terminal be for a table that can be read?"""
    return sum(_least_widths(grid)) + _GAP_CHARS * len(grid.columns)


def _least_widths(grid: Grid) -> list[int]:
    """Headings may break between words, cells of wide columns anywhere."""
    return [
        max(
            0,
            *map(len, column.head.split()),
            min(_longest(grid, at), _WIDE_CHARS) if column.wide else _longest(grid, at),
        )
        for at, column in enumerate(grid.columns)
    ]


def _longest(grid: Grid, at: int) -> int:
    return max(len(row[at]) for row in grid.rows)


def _rich_table(grid: Grid, left: int) -> Table:
    """A grid as a table of rich; cells are text, never markup, as they hold names of users.

    Args:
        grid: The table.
        left: Characters beyond the least width; wide columns get them first, then headings.
            Rich itself would shrink columns below the width of their figures.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        title=Text(_title(grid), style="bold"),
        title_justify="left",
        caption=Text(grid.note, style="dim") if grid.note else None,
        caption_justify="left",
        header_style="bold",
    )
    widths = _least_widths(grid)
    for at in sorted(range(len(widths)), key=lambda at: not grid.columns[at].wide):
        more = min(left, max(len(grid.columns[at].head), _longest(grid, at)) - widths[at])
        widths[at] += more
        left -= more
    for column, width in zip(grid.columns, widths, strict=True):
        table.add_column(
            Text(column.head),
            justify="right" if column.number else "left",
            overflow="fold",
            width=width,
        )
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _paragraph(grid: Grid, row: tuple[str, ...]) -> Text:
    """A row in running text: its name, then every other cell with its heading."""
    told = [
        f"{column.head} {cell}"
        for cell, column in zip(row[1:], grid.columns[1:], strict=True)
        if cell != NONE
    ]
    return Text.assemble((row[0], "bold"), " - ", "; ".join(told))


def plain_lines(grid: Grid) -> list[str]:
    """A grid as lines of text with aligned columns, two spaces apart.

    Args:
        grid: The table.

    Returns:
        Title, headings, rows and note; the last line is empty.
    """
    heads = tuple(column.head for column in grid.columns)
    table = (heads, *grid.rows)
    widths = [max(len(row[at]) for row in table) for at in range(len(heads))]
    lines = [_title(grid)]
    for row in table:
        cells = [
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(row, widths, grid.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    if grid.note:
        lines.append(grid.note)
    return [*lines, ""]


def _title(grid: Grid) -> str:
    return f"{grid.title} ({grid.origin})" if grid.origin else grid.title
