"""The reference of the frames' columns, from the tables that make them."""

from docs_site.tables import code, table
from steelyard.frames import TABLES


def page() -> str:
    """The whole page."""
    parts = ["# Frames\n\nTables of `steelyard.frames`; see [the guide](../analysts.md).\n"]
    for one in TABLES:
        rows = [
            (code(column.name), str(column.dtype), column.unit, column.meaning)
            for column in one.columns
        ]
        head = ("column", "type", "unit", "meaning")
        parts.append(f"\n## `{one.name}`\n\nA row is {one.row}.\n\n{table(head, rows)}")
    return "".join(parts)
