"""How wrong are the roofline estimates? Cross-validated on what the catalogue measured.

Run: python scripts/roofline_error.py
Left out together: all models of one instance type; one model on one silicon (micro-architecture
or GPU); everything of one silicon.
"""

import statistics
from collections.abc import Callable

from rich.console import Console

from steelyard.config.catalog_table import load_catalog
from steelyard.config.predicted_fits import PARTS, measured_cases
from steelyard.perf.roofline import RooflineCase, held_out_errors
from steelyard.report.format import count, percent
from steelyard.report.grid import Grid, columns
from steelyard.report.tables import print_grid

GROUPS: dict[str, Callable[[RooflineCase], str]] = {
    "instance type": lambda case: case.machine,
    "model on a silicon": lambda case: f"{case.silicon} {case.model}",
    "silicon": lambda case: case.silicon,
}
NAMES = {
    "itl": "gap between tokens, one stream",
    "slope": "gap added per stream",
    "prefill": "prefill per token",
}


def error_rows() -> list[tuple[str, ...]]:
    """One row per number, group left out and class of hardware."""
    catalog = load_catalog()
    rows: list[tuple[str, ...]] = []
    for part in PARTS:
        cases, seconds = measured_cases(catalog, part)
        for left_out, group in GROUPS.items():
            errors = held_out_errors(cases, seconds, [group(case) for case in cases])
            for hardware in ("arm", "x86", "gpu"):
                mine = sorted(
                    error
                    for case, error in zip(cases, errors, strict=True)
                    if case.hardware == hardware
                )
                p90 = mine[int(0.9 * (len(mine) - 1))]
                median = statistics.median(mine)
                rows.append(
                    (NAMES[part], left_out, hardware, count(len(mine)), percent(median),
                     percent(p90))
                )  # fmt: skip
    return rows


def main() -> None:
    """Print the table."""
    grid = Grid(
        title="Relative error of roofline estimates for pairs they were not calibrated on",
        origin="predicted",
        columns=columns(("number", "left out", "hardware"), ("pairs", "median", "p90")),
        rows=tuple(error_rows()),
    )
    print_grid(grid, Console())


if __name__ == "__main__":
    main()
