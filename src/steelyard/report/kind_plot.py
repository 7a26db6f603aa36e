# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""A plot of what each kind of step costs on each class of hardware."""

from steelyard.planner.kinds import KindCost
from steelyard.report.alike import usd_alike
from steelyard.report.canvas import HARDWARE_HUES, INK, axes, drawing, plain_log_ticks
from steelyard.report.format import name

_MAX_STEPS = 16
_ORDER = ("arm", "gpu", "x86")


def kind_plot(kinds: tuple[KindCost, ...]) -> str:
    """Which hardware is cheapest for each kind of step, and by how much?

    Args:
        kinds: Costs by step class and hardware; the first 16 classes are shown.

    Returns:
        SVG; empty without costs above 0.
    """
    priced = [one for one in kinds if one.usd_per_step > 0.0]
    steps = list(dict.fromkeys(one.name for one in priced))[:_MAX_STEPS]
    shown = [one for one in priced if one.name in steps]
    if not shown:
        return ""
    # The axis has the unit of the labels at the bars.
    labels = usd_alike([one.usd_per_step for one in shown])
    is_micro = labels[0].endswith("µ$")
    unit, unit_usd = ("µ$, millionths of a USD", 1e-6) if is_micro else ("USD", 1.0)
    values = [one.usd_per_step / unit_usd for one in shown]
    left, right = 0.5 * min(values), 3.0 * max(values)
    with drawing("kinds", 1.0 + 0.62 * len(steps)) as drawn:
        plot = axes(drawn)
        plot.set_xscale("log")
        for one, label in zip(shown, labels, strict=True):
            place = steps.index(one.name) + 0.26 * (_ORDER.index(one.hardware) - 1)
            colour = HARDWARE_HUES[one.hardware]
            size = one.usd_per_step / unit_usd
            plot.barh(place, size - left, left=left, height=0.24, color=colour)
            plot.annotate(
                label, (size, place), xytext=(3.0, 0.0),
                textcoords="offset points", va="center", fontsize=7.5, color=INK,
            )  # fmt: skip
        plot.set_xlim(left, right)
        plain_log_ticks(plot.xaxis)
        plot.set_yticks(range(len(steps)), [name(one, 34) for one in steps])
        plot.set_ylim(len(steps) - 0.4, -0.6)
        plot.set_xlabel(f"predicted cost of a step on a full machine, {unit}")
        for hardware in sorted({one.hardware for one in shown}):
            plot.bar(left, 0.0, color=HARDWARE_HUES[hardware], label=hardware)
        drawn.figure.legend(loc="outside upper left", ncols=3)
    return drawn.svg
