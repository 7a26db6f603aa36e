# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of simulated runs: a run over time, and policies by cost and attainment."""

import numpy as np

from steelyard.ledger.run_figures import RunFigures
from steelyard.report.canvas import GRID, INK, drawing, hue
from steelyard.report.format import name, short_offering


def over_time_plot(run: RunFigures, outages: tuple[tuple[float, float], ...] = ()) -> str:
    """What went on over time? Steps that ran per pool, steps that waited, tasks in time.

    Args:
        run: The run's figures.
        outages: Start and end of each, in seconds since the first arrival; shaded.

    Returns:
        SVG.
    """
    told = run.over_time
    middles_s = (np.arange(len(told.waiting)) + 0.5) * told.bucket_s
    with drawing("over-time", 6.2) as drawn:
        plots = drawn.figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
        for plot in plots:
            plot.grid(visible=True, axis="both", color=GRID, linewidth=0.8)
            for start_s, end_s in outages:
                plot.axvspan(start_s, end_s, color="#88888833", linewidth=0.0)
        levels = [np.array(values) for values in told.running.values()]
        labels = [name(short_offering(pool), 34) for pool in told.running]
        plots[0].stackplot(
            middles_s, *levels, colors=[hue(at) for at in range(len(levels))], labels=labels
        )
        plots[0].set_ylabel("steps running")
        plots[1].plot(middles_s, told.waiting, color=INK, linewidth=1.2)
        plots[1].set_ylabel("steps waiting")
        plots[1].set_ylim(0.0, max(1.0, 1.05 * max(told.waiting)))
        late = np.array(told.tasks) - np.array(told.good_tasks)
        width_s = 0.9 * told.bucket_s
        plots[2].bar(middles_s, told.good_tasks, width_s, color=hue(2), label="met every SLO")
        plots[2].bar(
            middles_s, late, width_s, bottom=told.good_tasks, color=INK, label="missed one"
        )
        plots[2].set_ylabel("tasks ended")
        plots[2].set_xlabel("time since the first task arrived, s")
        plots[2].set_xlim(0.0, told.bucket_s * len(told.waiting))
        plots[0].legend(loc="upper right")
        plots[2].legend(loc="upper right")
    return drawn.svg


def policy_plot(runs: dict[str, RunFigures]) -> str:
    """Which policy keeps more deadlines, and what does it use? A bar per policy.

    Args:
        runs: Policy's name to its figures.

    Returns:
        SVG; empty without runs.
    """
    if not runs:
        return ""
    policies = list(runs)
    with drawing("policies", 1.2 + 0.34 * len(policies)) as drawn:
        left, right = drawn.figure.subplots(1, 2, sharey=True)
        rows = np.arange(len(policies))
        for plot in (left, right):
            plot.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
        attained = [100.0 * runs[one].slo_attainment_frac for one in policies]
        used = [1000.0 * runs[one].used_usd_per_task for one in policies]
        left.barh(rows, attained, height=0.62, color=hue(2))
        left.set_xlim(0.0, 105.0)
        left.set_xlabel("tasks that met every SLO, %")
        right.barh(rows, used, height=0.62, color=hue(0))
        right.set_xlabel("used, USD per 1,000 tasks")
        for plot, values in ((left, attained), (right, used)):
            for row, value in zip(rows, values, strict=True):
                plot.text(value, row, f" {value:.3g}", va="center", fontsize=7.5, color=INK)
        right.set_xlim(0.0, max(used) * 1.2 or 1.0)
        left.set_yticks(rows, [name(one, 28) for one in policies])
        left.invert_yaxis()
    return drawn.svg
