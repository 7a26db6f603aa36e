# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of simulated runs: a run over time, and policies by cost and attainment."""

import numpy as np
from matplotlib.axes import Axes

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.ledger.over_time import TimeFigures
from steelyard.ledger.run_figures import RunFigures
from steelyard.perf.predict import FloatArray
from steelyard.report.canvas import GRID, INK, drawing, hue
from steelyard.report.format import name, short_offering

# More lines than this cannot be told apart.
_MAX_STEPS = 5


def over_time_plot(run: RunFigures, outages: tuple[tuple[float, float], ...] = ()) -> str:
    """What went on over time? Steps per pool and waiting, machines, money, latency, tasks in time.

    Args:
        run: The run's figures.
        outages: Start and end of each, in seconds since the first arrival; shaded.

    Returns:
        SVG.
    """
    told = run.over_time
    places = np.arange(len(told.waiting), dtype=np.float64)
    middles_s: FloatArray = (places + 0.5) * told.bucket_s
    with drawing("over-time", 11.4) as drawn:
        plots = drawn.figure.subplots(6, 1, sharex=True, height_ratios=(3, 2, 2, 2, 2, 2))
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
        _machines(plots[2], told, middles_s)
        _money(plots[3], told, middles_s)
        _latency(plots[4], told, middles_s)
        late = np.array(told.tasks) - np.array(told.good_tasks)
        width_s = 0.9 * told.bucket_s
        plots[5].bar(middles_s, told.good_tasks, width_s, color=hue(2), label="met every SLO")
        plots[5].bar(
            middles_s, late, width_s, bottom=told.good_tasks, color=INK, label="missed one"
        )
        plots[5].set_ylabel("tasks ended")
        plots[5].set_xlabel("time since the first task arrived, s")
        plots[5].set_xlim(0.0, told.bucket_s * len(told.waiting))
        # Beside the axes, for they would hide lines inside.
        drawn.figure.legend(
            *plots[0].get_legend_handles_labels(), loc="outside upper left", ncols=3
        )
        for plot in plots[3:]:
            if plot.get_legend_handles_labels()[0]:
                plot.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7.5)
    return drawn.svg


def _machines(plot: Axes, told: TimeFigures, middles_s: FloatArray) -> None:
    for at, pool in enumerate(told.running):
        plot.plot(
            middles_s, told.pools[pool].rented, color=hue(at), linewidth=1.2, drawstyle="steps-mid"
        )
    plot.set_ylabel("replicas rented")
    plot.set_ylim(bottom=0.0)


def _money(plot: Axes, told: TimeFigures, middles_s: FloatArray) -> None:
    per_hour = SECONDS_PER_HOUR / told.bucket_s
    plot.plot(middles_s, per_hour * np.array(told.paid_usd), color=INK, linewidth=1.2, label="paid")
    used = per_hour * np.array(told.used_usd)
    plot.plot(middles_s, used, color=hue(0), linewidth=1.2, label="used")
    plot.set_ylabel("USD per hour")
    plot.set_ylim(bottom=0.0)


def _latency(plot: Axes, told: TimeFigures, middles_s: FloatArray) -> None:
    for at, step in enumerate(told.steps[:_MAX_STEPS]):
        p95_s = [np.nan if one is None else one.p95_s for one in step.e2e]
        plot.plot(
            middles_s,
            p95_s,
            "o-",
            markersize=2.5,
            color=hue(at),
            linewidth=1.0,
            label=f"{name(step.step, 18)}\n({name(step.agent, 18)})",
        )
    plot.set_ylabel("latency p95, s")
    plot.set_ylim(bottom=0.0)


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
