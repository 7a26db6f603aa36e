"""Tables of what was found out about a plan: hours of hardware, simulated margin, sensitivity."""

from steelyard.planner.hours import FleetHours
from steelyard.planner.plan_checks import MarginCheck, PriceRange, Sensitivity, SensitivityCase
from steelyard.report.format import NONE, count, name, percent, ratio, short_offering, usd
from steelyard.report.grid import Grid, columns


def hours_grid(hours: tuple[FleetHours, ...]) -> Grid:
    """Which hours of hardware does the plan use beside simpler fleets?

    Args:
        hours: The plan's and the baselines'.

    Returns:
        One row per fleet.
    """
    rows = [
        (
            name(one.fleet),
            ", ".join(f"{count(round(h))} x {hw}" for hw, h in one.machine_hours.items()),
            ", ".join(f"{count(round(h))} x {gpu}" for gpu, h in one.gpu_hours.items()) or "none",
            NONE if one.gpu_hours_freed is None else f"{one.gpu_hours_freed:g}",
        )
        for one in hours
    ]
    return Grid(
        title="Hours of hardware in an hour",
        origin="planned",
        columns=columns(
            ("fleet", "machine-hours", "GPU-hours"), ("GPU-hours freed against all GPU",)
        ),
        rows=tuple(rows),
    )


def margin_grid(checks: tuple[MarginCheck, ...]) -> Grid:
    """Which fleets were run on a virtual clock, and did they keep their limits?

    Args:
        checks: In the order in which they were tried.

    Returns:
        One row per fleet.
    """
    rows = [
        (
            f"{one.planned_service_factor:g} x figures",
            ratio(one.extra_headroom),
            usd(one.usd_per_hour),
            f"{one.service_factor:g} x figures",
            percent(one.tasks_met_frac),
            f"{percent(one.steps_met_frac)} {name(one.worst_step)}",
            "yes" if one.met else "no",
        )
        for one in checks
    ]
    return Grid(
        title="Fleets tried in the simulator",
        origin="simulated",
        columns=columns(
            ("planned for",),
            ("extra headroom", "per hour", "simulated at", "tasks met"),
            ("steps met, worst", "enough"),
        ),
        rows=tuple(rows),
        note=(
            "Tasks met: succeeded inside deadline and budget. Steps met: inside their limits of "
            "time to first token and per output token, queueing included."
        ),
    )


def price_grid(found: Sensitivity) -> Grid:
    """How far may prices move before another fleet is cheaper?

    Args:
        found: What would change the answer.

    Returns:
        One row per offering of the plan.
    """
    return Grid(
        title="What changes the answer: prices",
        origin="planned",
        columns=columns(
            ("offering",), ("machines", "may fall by", "may rise by"), ("bought after the rise",)
        ),
        rows=tuple(_price_row(one) for one in found.prices),
        note="Each price alone, the others as they are; every figure is a plan made anew.",
    )


def _price_row(one: PriceRange) -> tuple[str, ...]:
    return (
        name(one.offering),
        count(one.machines),
        _range(one.keeps_down_frac, one.leaves_down_frac),
        _range(one.keeps_up_frac, one.leaves_up_frac),
        _fleet(one.instead) or NONE,
    )


def _range(keeps_frac: float, leaves_frac: float | None) -> str:
    if leaves_frac is None:
        return f"{percent(keeps_frac)} or more"
    return f"{percent(keeps_frac)}, not {percent(leaves_frac)}"


def case_grid(found: Sensitivity, usd_per_hour: float) -> Grid:
    """What is bought at other loads and with other cached shares?

    Args:
        found: What would change the answer.
        usd_per_hour: Cost of the plan itself.

    Returns:
        One row per change.
    """
    return Grid(
        title="What changes the answer: load and cached share",
        origin="planned",
        columns=columns(
            ("change",),
            ("per hour", "against the plan", "per 1,000 tasks"),
            ("same offerings", "machines"),
        ),
        rows=tuple(_case_row(one, usd_per_hour) for one in found.cases),
    )


def _case_row(one: SensitivityCase, usd_per_hour: float) -> tuple[str, ...]:
    if one.usd_per_hour is None:
        return (one.change, *(NONE,) * 4, f"infeasible: {name(one.infeasible, 300)}")
    return (
        one.change,
        usd(one.usd_per_hour),
        ratio(one.usd_per_hour / usd_per_hour),
        usd(one.usd_per_1000_tasks),
        "yes" if one.same_mix else "no",
        _fleet(one.fleet),
    )


def _fleet(fleet: dict[str, int]) -> str:
    return ", ".join(f"{count(n)} x {short_offering(o)}" for o, n in sorted(fleet.items()))
