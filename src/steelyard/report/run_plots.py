# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Plots of one run: step latency, the tasks' timeline, predicted against measured."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from steelyard.ledger.ledger import AttemptRecord, Ledger
from steelyard.report.canvas import GRID, INK, axes, drawing, hue, plain_log_ticks
from steelyard.report.format import name

_MAX_POINTS = 300
_MAX_TASKS = 40
# Above this ratio of the largest to the smallest value, a linear axis hides the small ones.
_LOG_ABOVE = 30.0
_GOLDEN = 0.6180339887498949
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def latency_plot(ledger: Ledger) -> str:
    """How long did each kind of step take in each pool? A box per kind, its steps as points.

    Boxes span the quartiles, whiskers the 5th to the 95th percentile.

    Args:
        ledger: The books of a run, measured or simulated.

    Returns:
        SVG; empty when no attempt went well.
    """
    groups = _by_kind(ledger)
    if not groups:
        return ""
    pools = _pools(ledger)
    with drawing("latency", 1.0 + 0.42 * len(groups)) as drawn:
        plot = axes(drawn)
        for row, (kind, latencies_s) in enumerate(groups):
            colour = hue(pools.index(kind[2]))
            _box(plot, row, latencies_s, colour)
            _points(plot, row, latencies_s, colour)
        plot.set_yticks(range(len(groups)), [_kind_label(*key) for key, _ in groups])
        plot.invert_yaxis()
        _scale(plot, [value for _, values in groups for value in values])
        plot.set_xlabel("latency from placement to end, s")
    return drawn.svg


def _by_kind(ledger: Ledger) -> list[tuple[tuple[str, str, str], list[float]]]:
    groups: dict[tuple[str, str, str], list[float]] = {}
    for attempt in _good(ledger):
        key = (attempt.step.agent, attempt.step.name, attempt.decision.pool)
        groups.setdefault(key, []).append(attempt.latency_s)
    return sorted(groups.items())


def _good(ledger: Ledger) -> list[AttemptRecord]:
    return [one for one in ledger.attempts if one.outcome == "ok"]


def _pools(ledger: Ledger) -> list[str]:
    return sorted(ledger.pools)


def _kind_label(agent: str, step: str, pool: str) -> str:
    return f"{name(agent, 16)} / {name(step, 20)}\nin {name(pool, 28)}"


def _box(plot: Axes, row: int, latencies_s: list[float], colour: str) -> None:
    plot.boxplot(
        [latencies_s],
        positions=[row],
        orientation="horizontal",
        widths=0.55,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": f"{colour}40", "edgecolor": colour},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        medianprops={"color": INK, "linewidth": 1.6},
    )


def _points(plot: Axes, row: int, latencies_s: list[float], colour: str) -> None:
    shown = latencies_s[:: math.ceil(len(latencies_s) / _MAX_POINTS)]
    # A low-discrepancy sequence spreads the points without chance.
    offsets = [row + 0.36 * ((index * _GOLDEN) % 1.0 - 0.5) for index in range(len(shown))]
    plot.plot(shown, offsets, "o", markersize=2.6, color=colour, alpha=0.75, markeredgewidth=0.0)


def _scale(plot: Axes, values_s: list[float]) -> None:
    low, high = min(values_s), max(values_s)
    if low > 0.0 and high > _LOG_ABOVE * low:
        plot.set_xscale("log")
        plain_log_ticks(plot.xaxis)
        plot.set_xlim(low * 0.7, high * 1.4)
    else:
        plot.set_xlim(0.0, (high or 1.0) * 1.08)


def timeline_plot(ledger: Ledger) -> str:
    """When did each task's steps run, and in which pool? One row per task, waiting drawn thin.

    Args:
        ledger: The books of a run, measured or simulated.

    Returns:
        SVG; empty without tasks. The first 40 tasks are shown.
    """
    tasks = sorted(ledger.tasks, key=lambda task: (task.submitted_s, task.task_id))[:_MAX_TASKS]
    if not tasks:
        return ""
    rows = {task.task_id: row for row, task in enumerate(tasks)}
    pools = _pools(ledger)
    origin_s = tasks[0].submitted_s
    with drawing("timeline", 1.1 + 0.19 * len(tasks)) as drawn:
        plot = axes(drawn)
        for attempt in ledger.attempts:
            row = rows.get(attempt.step.task_id)
            if row is not None:
                _bar(plot, row, attempt, origin_s, hue(pools.index(attempt.decision.pool)))
        for row, task in enumerate(tasks):
            if task.deadline_s is not None and not task.met_slo:
                plot.plot(task.finished_s - origin_s, row, "x", color=INK, markersize=5.0)
        plot.set_yticks(range(len(tasks)), [name(task.task_id, 22) for task in tasks], fontsize=7)
        plot.set_ylim(len(tasks) - 0.4, -0.6)
        plot.set_xlim(left=0.0)
        plot.set_xlabel("time since the first task arrived, s")
        handles = [Patch(color=hue(i), label=name(pool, 28)) for i, pool in enumerate(pools)]
        drawn.figure.legend(handles=handles, loc="outside upper left", ncols=min(3, len(pools)))
    return drawn.svg


def _bar(plot: Axes, row: int, attempt: AttemptRecord, origin_s: float, colour: str) -> None:
    placed_s = attempt.placed_s - origin_s
    finished_s = attempt.finished_s - origin_s
    started_s = finished_s if attempt.started_s is None else attempt.started_s - origin_s
    if started_s > placed_s:
        plot.barh(row, started_s - placed_s, left=placed_s, height=0.14, color=colour, alpha=0.55)
    if finished_s > started_s:
        failed = attempt.outcome != "ok"
        plot.barh(
            row,
            finished_s - started_s,
            left=started_s,
            height=0.66,
            color=f"{colour}33" if failed else colour,
            edgecolor=colour if failed else "none",
            linewidth=0.6,
        )


def prediction_plot(ledger: Ledger) -> str:
    """How good were the predictions? Predicted against measured latency of every step.

    Args:
        ledger: The books of a measured run.

    Returns:
        SVG with the diagonal of a perfect prediction; empty when there is nothing to compare.
    """
    kinds: dict[str, list[tuple[float, float]]] = {}
    for attempt in _good(ledger):
        pair = (attempt.decision.predicted_finish_s, attempt.latency_s)
        if min(pair) > 0.0:
            kinds.setdefault(attempt.step.name, []).append(pair)
    if not kinds:
        return ""
    low = min(min(pair) for pairs in kinds.values() for pair in pairs) * 0.7
    high = max(max(pair) for pairs in kinds.values() for pair in pairs) * 1.4
    with drawing("prediction", 4.2) as drawn:
        plot = axes(drawn)
        plot.grid(visible=True, axis="both", color=GRID, linewidth=0.8)
        plot.add_line(Line2D([low, high], [low, high], color=INK, linewidth=1.0, linestyle="--"))
        for index, (step, pairs) in enumerate(sorted(kinds.items())):
            shown = np.array(pairs[:: math.ceil(len(pairs) / _MAX_POINTS)])
            marker = _MARKERS[index % len(_MARKERS)]
            plot.plot(
                shown[:, 0],
                shown[:, 1],
                marker,
                color=hue(index),
                label=name(step, 28),
                markersize=4.5,
                alpha=0.8,
                markeredgewidth=0.0,
            )
        plot.set_xscale("log")
        plot.set_yscale("log")
        plain_log_ticks(plot.xaxis)
        plain_log_ticks(plot.yaxis)
        plot.set_xlim(low, high)
        plot.set_ylim(low, high)
        plot.set_xlabel("predicted at placement, s")
        plot.set_ylabel("measured, s")
        drawn.figure.legend(loc="outside right upper")
    return drawn.svg
