# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of cost over latency, and of the fleet over a day."""

from matplotlib.lines import Line2D

from steelyard.planner.day import DayPlan
from steelyard.planner.latency_front import LatencyFront, LatencyPoint
from steelyard.report.canvas import GRID, HARDWARE_HUES, INK, drawing, plain_log_ticks

_HARDWARE = ("arm", "x86", "gpu")
_NAMES = {"arm": "Arm", "x86": "x86", "gpu": "GPU"}


def latency_plot(front: LatencyFront) -> str:
    """What does it cost to be faster?

    Args:
        front: Plans over a range of deadlines and gaps.

    Returns:
        SVG: plans by task time and cost, the best ones joined, coloured by the hardware that takes
        most of the rent; a ring around the plan as asked.
    """
    with drawing("latency", 3.8) as drawn:
        plot = drawn.figure.add_subplot()
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.grid(visible=True, color=GRID, linewidth=0.8)
        best = [one for one in front.points if one.best]
        plot.plot(
            [one.task_s for one in best],
            [one.usd_per_1000_tasks for one in best],
            color=INK,
            linewidth=1.2,
            drawstyle="steps-post",
        )
        for point in front.points:
            plot.plot(
                point.task_s,
                point.usd_per_1000_tasks,
                marker="o",
                linestyle="none",
                markersize=7.0 if point.best else 4.0,
                color=HARDWARE_HUES[_most(point)],
                alpha=1.0 if point.best else 0.45,
            )
        plot.plot(
            front.asked.task_s,
            front.asked.usd_per_1000_tasks,
            marker="o",
            linestyle="none",
            markersize=12.0,
            markerfacecolor="none",
            markeredgecolor=INK,
        )
        plain_log_ticks(plot.xaxis)
        plain_log_ticks(plot.yaxis)
        plot.set_xlabel("planned seconds of a task, waiting aside")
        plot.set_ylabel("USD per 1,000 tasks")
        drawn.figure.legend(handles=_latency_legend(front), loc="outside upper left", ncols=5)
    return drawn.svg


def _latency_legend(front: LatencyFront) -> list[Line2D]:
    shown = {_most(point) for point in front.points}
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="none",
            color=HARDWARE_HUES[h],
            label=f"mostly {_NAMES[h]}",
        )
        for h in _HARDWARE
        if h in shown
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.2, label="no plan is faster and cheaper"))
    handles.append(
        Line2D(
            [],
            [],
            marker="o",
            linestyle="none",
            markersize=11.0,
            markerfacecolor="none",
            markeredgecolor=INK,
            label="as asked",
        )
    )
    return handles


def _most(point: LatencyPoint) -> str:
    return max(sorted(point.rent_frac), key=lambda hardware: point.rent_frac[hardware])


def day_plot(day: DayPlan) -> str:
    """What runs at each hour, and what does holding the busiest hour's fleet cost beside it?

    Args:
        day: Plans by the hour.

    Returns:
        SVG: stacked bars of rent by hardware under the line of the held fleet, above the load.
    """
    with drawing("day", 4.2) as drawn:
        mix, load = drawn.figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
        mix.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
        hours = [one.hour for one in day.hours]
        mix.set_xlim(0.0, len(hours))
        under = [0.0] * len(hours)
        for hardware in _HARDWARE:
            rents = [one.usd_per_hour_by_hardware.get(hardware, 0.0) for one in day.hours]
            if any(rents):
                mix.bar(
                    hours,
                    rents,
                    width=0.9,
                    align="edge",
                    bottom=under,
                    color=HARDWARE_HUES[hardware],
                    label=_NAMES[hardware],
                )
            under = [a + b for a, b in zip(under, rents, strict=True)]
        held = day.held_usd_per_day / len(day.hours)
        mix.axhline(held, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label="peak fleet held")
        mix.set_ylabel("USD per hour")
        mix.set_ylim(0.0, 1.08 * held)
        mix.set_title(
            f"{day.usd_per_day:,.2f} USD a day instead of {day.held_usd_per_day:,.2f}:"
            f" {100.0 * day.saved_frac:.0f} % less, if switching is free"
        )
        load.step(
            [*hours, hours[-1] + 1],
            [*(one.load_frac for one in day.hours), day.hours[-1].load_frac],
            where="post",
            color=INK,
            linewidth=1.2,
        )
        load.set_ylim(0.0, None)
        load.set_ylabel("load")
        course = "assumed course" if day.assumed else "course as given"
        load.set_xlabel(f"hour of the day ({course})")
        load.set_xticks(range(0, len(hours) + 1, 3))
        drawn.figure.legend(loc="outside upper left", ncols=4)
    return drawn.svg
