"""Grids in a terminal: drawn tables for people, plain aligned lines in a pipe."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from steelyard.report.grid import Grid


def print_grid(grid: Grid, console: Console) -> None:
    """Show a grid on a console; nothing when it has no rows.

    Args:
        grid: The table.
        console: Where to; a terminal gets a drawn table, a pipe plain lines that never wrap.
    """
    if not grid.rows:
        return
    if console.is_terminal:
        console.print(rich_table(grid))
    else:
        console.out("\n".join(plain_lines(grid)), highlight=False)


def rich_table(grid: Grid) -> Table:
    """A grid as a table of rich.

    Args:
        grid: The table.

    Returns:
        The table; cells are text, never markup, as they hold names that users gave.
    """
    table = Table(
        title=Text(_title(grid), style="bold"),
        title_justify="left",
        caption=Text(grid.note, style="dim") if grid.note else None,
        caption_justify="left",
        header_style="bold",
    )
    for column in grid.columns:
        table.add_column(
            Text(column.head),
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=column.number,
        )
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


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
