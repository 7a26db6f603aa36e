"""A table before it is drawn: terminal and page show the same cells."""

import msgspec

from steelyard.report.inputs import Origin


class Column(msgspec.Struct, frozen=True):
    """Heading of a column, with the unit where cells carry none.

    Attributes:
        head: Heading.
        number: Whether cells stand at the right, as numbers do.
        wide: Whether cells are sentences or lists, which wrap.
    """

    head: str
    number: bool = False
    wide: bool = False


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table of text cells.

    Attributes:
        title: What the table answers.
        origin: Where its figures come from; None where each row says so, or none are shown.
        columns: Headings.
        rows: Cells, as many as columns in each row; the first names the row.
        note: What must be known to read it; empty if nothing.
    """

    title: str
    origin: Origin | None
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def columns(
    texts: tuple[str, ...], numbers: tuple[str, ...], wide: tuple[str, ...] = ()
) -> tuple[Column, ...]:
    """Headings of text columns, then of number columns, then of wide text columns.

    >>> [column.number for column in columns(("pool",), ("cost",), ("why",))]
    [False, True, False]
    """
    return (
        *(Column(head) for head in texts),
        *(Column(head, number=True) for head in numbers),
        *(Column(head, wide=True) for head in wide),
    )
