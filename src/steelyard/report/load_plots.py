# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of cost over load: where each class of hardware wins, and what the mix is made of."""

import itertools

from matplotlib.axes import Axes

from steelyard.planner.load_curve import LoadPoint
from steelyard.report.canvas import GRID, HARDWARE_HUES, INK, drawing, plain_log_ticks

_HARDWARE = ("arm", "x86", "gpu")
_LABELS = {"arm": "all Arm", "x86": "all x86", "gpu": "all GPU"}
# Arm and x86 often cost nearly the same: the line below must show on both sides of the other.
_WIDTHS = {"arm": 4.0, "x86": 1.6, "gpu": 1.6}
_NAMES = {"arm": "Arm", "x86": "x86", "gpu": "GPU"}


def load_plot(points: tuple[LoadPoint, ...]) -> str:
    """What does the demand cost over load, and which hardware alone would be cheapest where?

    Args:
        points: Costs at ascending loads.

    Returns:
        SVG: lines per class of hardware and for the mix, above a strip that names the cheapest
        single class at each load.
    """
    with drawing("load", 4.4) as drawn:
        cost, strip = drawn.figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [12, 1]}
        )
        cost.set_xscale("log")
        cost.set_yscale("log")
        cost.grid(visible=True, color=GRID, linewidth=0.8)
        for hardware in _HARDWARE:
            _line(cost, points, hardware)
        loads = [point.tasks_per_s for point in points]
        mix = [point.usd_per_1000_tasks["mix"] or 0.0 for point in points]
        cost.plot(loads, mix, color=INK, linewidth=2.0, linestyle=(0, (4, 2)), label="the mix")
        plain_log_ticks(cost.yaxis)
        cost.set_ylabel("USD per 1,000 tasks")
        _winners(strip, points)
        plain_log_ticks(strip.xaxis)
        strip.set_xlabel("tasks per second (planned; whole machines at list prices)")
        drawn.figure.legend(loc="outside upper left", ncols=4)
    return drawn.svg


def _line(plot: Axes, points: tuple[LoadPoint, ...], hardware: str) -> None:
    """A line with gaps where that hardware alone cannot serve the demand."""
    known = [
        (point.tasks_per_s, cost)
        for point in points
        if (cost := point.usd_per_1000_tasks.get(hardware)) is not None
    ]
    label = _LABELS[hardware] if known else f"{_LABELS[hardware]}: cannot"
    plot.plot(
        [load for load, _ in known],
        [cost for _, cost in known],
        color=HARDWARE_HUES[hardware],
        marker="o",
        markersize=3.0,
        linewidth=_WIDTHS[hardware],
        label=label,
    )


def _winners(plot: Axes, points: tuple[LoadPoint, ...]) -> None:
    """A coloured strip: the cheapest single class of hardware at each load."""
    edges = _edges([point.tasks_per_s for point in points])
    begun: tuple[str, float] | None = None
    for number, point in enumerate(points):
        best = cheapest_hardware(point)
        if begun is None or begun[0] != best:
            if begun is not None:
                _block(plot, begun, edges[number])
            begun = (best, edges[number])
    if begun is not None:
        _block(plot, begun, edges[-1])
    plot.set_yticks([0.5], ["cheapest alone"])
    plot.tick_params(axis="y", length=0.0)
    plot.set_ylim(0.0, 1.0)
    plot.set_xlim(edges[0], edges[-1])
    plot.spines["left"].set_visible(False)


def _block(plot: Axes, begun: tuple[str, float], end: float) -> None:
    hardware, start = begun
    if not hardware:
        return
    plot.axvspan(start, end, color=HARDWARE_HUES[hardware])
    middle = (start * end) ** 0.5
    plot.text(middle, 0.45, _NAMES[hardware], ha="center", va="center", color="white")


def cheapest_hardware(point: LoadPoint) -> str:
    """Which single class of hardware is cheapest at this load? Empty where none can."""
    known = [
        (cost, hardware)
        for hardware in _HARDWARE
        if (cost := point.usd_per_1000_tasks.get(hardware)) is not None
    ]
    return min(known)[1] if known else ""


def _edges(loads: list[float]) -> list[float]:
    """Geometric means between neighbours; half a step beyond both ends."""
    if len(loads) == 1:
        return [loads[0] / 2.0, loads[0] * 2.0]
    inner = [(a * b) ** 0.5 for a, b in itertools.pairwise(loads)]
    return [loads[0] ** 2 / inner[0], *inner, loads[-1] ** 2 / inner[-1]]


def mix_plot(points: tuple[LoadPoint, ...]) -> str:
    """Where does the mix's money go at each load?

    Args:
        points: Plans at ascending loads.

    Returns:
        SVG: stacked bars, one per load.
    """
    with drawing("mix", 2.8) as drawn:
        plot = drawn.figure.add_subplot()
        plot.set_xscale("log")
        edges = _edges([point.tasks_per_s for point in points])
        under = [0.0] * len(points)
        for hardware in _HARDWARE:
            shares = [100.0 * point.mix_rent_frac.get(hardware, 0.0) for point in points]
            plot.bar(
                edges[:-1],
                shares,
                width=[0.94 * (b - a) for a, b in itertools.pairwise(edges)],
                align="edge",
                bottom=under,
                color=HARDWARE_HUES[hardware],
                label=_NAMES[hardware],
            )
            under = [a + b for a, b in zip(under, shares, strict=True)]
        plain_log_ticks(plot.xaxis)
        plot.set_xlim(edges[0], edges[-1])
        plot.set_ylim(0.0, 100.0)
        plot.set_ylabel("share of the mix's rent, %")
        plot.set_xlabel("tasks per second (planned)")
        drawn.figure.legend(loc="outside upper left", ncols=3)
    return drawn.svg
