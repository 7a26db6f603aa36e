"""All tables, and what their columns mean."""

from typing import Any

import polars as pl

from steelyard.frames import ledgers, plans, workloads
from steelyard.frames.column import Table

TABLES: tuple[Table[Any], ...] = (
    workloads.TASKS,
    workloads.STEPS,
    plans.MACHINES,
    plans.CHOICES,
    plans.BASELINES,
    ledgers.TASKS,
    ledgers.ATTEMPTS,
    ledgers.POOLS,
)


def columns() -> pl.DataFrame:
    """Which columns are there, and what do they mean?

    Returns:
        One row per column: table, column, type, unit, meaning.
    """
    rows = [
        (table.name, one.name, str(one.dtype), one.unit, one.meaning)
        for table in TABLES
        for one in table.columns
    ]
    return pl.DataFrame(rows, schema=["table", "column", "type", "unit", "meaning"], orient="row")
