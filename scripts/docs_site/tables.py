"""Markdown from plain data: tables whose cells hold any text, and names as code."""

from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    """A name as Markdown code; empty stays empty.

    >>> code("a|b"), code("")
    ('`a|b`', '')
    """
    return f"`{text}`" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table.

    Args:
        head: Headings of the columns.
        rows: Cells; line breaks become spaces, bars are escaped.

    Returns:
        Its lines, with an end.

    >>> print(table(["a"], [["x|y"]]), end="")
    | a |
    |---|
    | x\|y |
    """
    lines = [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    told = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(told)} |"
