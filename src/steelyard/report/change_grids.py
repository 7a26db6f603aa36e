"""What a plan would change, as a table."""

import math

from steelyard.planner.changes import MachineChange
from steelyard.report.grid import Grid, columns


def change_grid(changes: tuple[MachineChange, ...]) -> Grid:
    """What would be rented more or less?

    Args:
        changes: Of a plan against the fleet in force.
    """
    known = [one.delta_usd_per_hour for one in changes if one.delta_usd_per_hour is not None]
    return Grid(
        title="What would change",
        origin=None,
        columns=columns(("offering",), ("in force", "planned", "machines", "USD/h")),
        rows=tuple(
            (
                one.offering,
                str(one.before),
                str(one.after),
                f"{one.after - one.before:+d}",
                "not known" if one.delta_usd_per_hour is None else f"{one.delta_usd_per_hour:+.4g}",
            )
            for one in changes
        ),
        note=f"Together {math.fsum(known):+.4g} USD/h.",
    )
