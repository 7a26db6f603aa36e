"""Runs, plans and simulations side by side."""

import math

import msgspec

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.planner.plan import FleetPlan
from steelyard.report.format import NONE, name, ratio
from steelyard.report.grid import Column, Grid
from steelyard.report.page import Figure, Section, Source, table


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison.

    Attributes:
        label: Its name for people.
        figures: Its numbers, matched with the others' by name.
    """

    label: str
    figures: tuple[Figure, ...]


_ORDER = (
    "tasks ended",
    "paid per task",
    "used per task",
    "SLO attainment",
    "goodput",
    "refused steps",
    "GPU-hours per 1,000 tasks",
    "energy per 1,000 tasks, estimate",
)


def compared_plan(plan: FleetPlan, label: str, where: Source) -> Compared:
    """A plan in the numbers of a run; what only a run has is missing.

    Args:
        plan: The plan.
        label: Its name.
        where: Its file.

    Returns:
        Cost per task, GPU-hours; energy with all cores busy, which is the most.
    """
    per_hour = plan.tasks_per_s * SECONDS_PER_HOUR
    gpu_hours = next(
        (math.fsum(one.gpu_hours.values()) for one in plan.hours if one.fleet == "plan"), None
    )
    told: tuple[tuple[str, float | None, str], ...] = (
        ("paid per task", plan.usd_per_1000_tasks / 1000.0, "USD"),
        ("GPU-hours per 1,000 tasks", _per_thousand(gpu_hours, per_hour), "GPU-hours"),
        ("energy per 1,000 tasks, estimate", plan.watts / per_hour or None, "kWh"),
    )
    figures = (
        Figure(name=what, about=label, value=value, unit=unit, where=where)
        for what, value, unit in told
    )
    return Compared(label=label, figures=tuple(figures))


def _per_thousand(amount: float | None, tasks: float) -> float | None:
    return None if amount is None else 1000.0 * amount / tasks


def comparison_section(sides: tuple[Compared, ...]) -> Section:
    """How do several runs, plans and simulations compare?

    Args:
        sides: At least two; ratios are to the first.

    Returns:
        The section.
    """
    by_name = [{one.name: one for one in side.figures} for side in sides]
    first = by_name[0]
    rows: list[tuple[str, ...]] = []
    figures = [one for side in sides for one in side.figures]
    for what in _ORDER:
        if not any(what in one and one[what].value is not None for one in by_name):
            continue
        cells: list[str] = []
        for side, known in zip(sides, by_name, strict=True):
            figure = known.get(what)
            against = _against(figure, first.get(what)) if known is not first else None
            cells.append(NONE if figure is None else figure.told())
            if known is not first:
                cells.append(ratio(against))
            if figure is not None and against is not None:
                figures.append(
                    Figure(
                        name=f"{what} against {sides[0].label}", about=side.label, value=against,
                        unit="ratio", where=figure.where,
                    )
                )  # fmt: skip
        rows.append((what, *cells))
    heads = [Column("")]
    for at, (side, known) in enumerate(zip(sides, by_name, strict=True)):
        origin = next(iter(known.values())).where.origin
        heads.append(Column(f"{name(side.label, 40)} ({origin})", number=True))
        if at:
            heads.append(Column("ratio", number=True))
    grid = Grid(
        title="Side by side",
        origin=None,
        columns=tuple(heads),
        rows=tuple(rows),
        note=(
            "Ratios are to the first column. Paid counts idle time. A plan's cost and energy are"
            " of its machines with all cores busy at the planned rate; loads may differ."
        ),
    )
    wheres = [side.figures[0].where for side in sides]
    names = ", ".join(dict.fromkeys(one.source for one in wheres))
    where = Source(origin=wheres[0].origin, source=names, command=wheres[0].command)
    return Section(
        key="comparison", title="Comparison", figures=tuple(figures), blocks=(table(grid, where),)
    )


def _against(figure: Figure | None, base: Figure | None) -> float | None:
    if figure is None or base is None or figure.value is None or not base.value:
        return None
    return figure.value / base.value
