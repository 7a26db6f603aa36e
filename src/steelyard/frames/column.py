"""What a column holds: name, type, unit, meaning, and where its values come from."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec
import polars as pl

R = TypeVar("R")
Value = str | int | float | bool | list[int] | None
DataType = type[pl.DataType] | pl.DataType


class Column(msgspec.Struct, Generic[R], frozen=True):
    """One column of a table.

    Attributes:
        name: Its name, with the unit where it is a quantity.
        dtype: Its type in Polars.
        unit: Its unit; empty for names, numbers and yes or no.
        meaning: What it says, and when it is null.
        value: From a row's source to its value.
    """

    name: str
    dtype: DataType
    unit: str
    meaning: str
    value: Callable[[R], Value]


class Table(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A documented table.

    Attributes:
        name: Its name: the function that makes it.
        row: What a row is.
        columns: Its columns, in order.
    """

    name: str
    row: str
    columns: tuple[Column[R], ...]

    def frame(self, rows: Iterable[R]) -> pl.DataFrame:
        """The table of these rows.

        Args:
            rows: What rows are made of, in order.

        Returns:
            One row each; without any, an empty frame of the same columns.
        """
        told = list(rows)
        data = {one.name: [one.value(row) for row in told] for one in self.columns}
        return pl.DataFrame(data, schema={one.name: one.dtype for one in self.columns})
