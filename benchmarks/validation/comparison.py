"""By how much do two ledgers of the same tasks differ, figure by figure?"""

import math
import statistics
from typing import Any

import msgspec
import numpy as np

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall
from steelyard.ledger.ledger import Ledger, TaskRecord
from steelyard.perf.cost import attempt_usd

LATENCIES = ("task_s", "llm_s", "tool_s")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load and seed, measured and compared.

    Attributes:
        name: Which one, and what is compared with what.
        tasks: How many there were.
        figures: Measured and compared value of each.
        distance_frac: Wasserstein's distance of the task latencies, over their mean.
        swing_frac: How far the rounds of profiles around the run lay apart.
    """

    name: str
    tasks: int
    figures: dict[str, tuple[float, float]]
    distance_frac: float
    swing_frac: float

    def error(self, what: str) -> float:
        """Relative error of a figure; 0 of a figure that is 0 on both sides."""
        measured, other = self.figures[what]
        return (other - measured) / measured if measured else float(bool(other))


def compare(
    name: str, one: tuple[Ledger, str], other: tuple[Ledger, str], swing_frac: float
) -> Row:
    """Compare the tasks of two ledgers.

    Args:
        name: What the row is called.
        one: Ledger that was measured, and what the ids of the tasks begin with.
        other: Ledger to compare with it.
        swing_frac: How far the machine's speed swung.
    """
    # Both by the live books' curves: what a step costs must not swing with the machine's speed.
    pools = one[0].pools
    a, b = _side(*one, pools), _side(*other, pools)
    figures: dict[str, tuple[float, float]] = {}
    for what in LATENCIES:
        figures[f"{what} mean"] = (float(np.mean(a[what])), float(np.mean(b[what])))
        for q in (50, 95):
            pair = (float(np.percentile(a[what], q)), float(np.percentile(b[what], q)))
            figures[f"{what} p{q}"] = pair
    for what in ("usd_per_task", "goodput_per_s", "output_tokens"):
        figures[what] = (a[what], b[what])
    grid = np.linspace(0.0, 1.0, 201)
    apart = np.abs(np.quantile(a["task_s"], grid) - np.quantile(b["task_s"], grid))
    return Row(
        name=name,
        tasks=len(a["task_s"]),
        figures=figures,
        distance_frac=float(np.mean(apart) / np.mean(a["task_s"])),
        swing_frac=swing_frac,
    )


def _side(ledger: Ledger, prefix: str, pools: dict[str, PoolSpec]) -> dict[str, Any]:
    tasks = [task for task in ledger.tasks if task.task_id.startswith(prefix)]
    steps: dict[str, list[float]] = {"llm": [], "tool": []}
    costs_usd: list[float] = []
    output_tokens = 0
    for attempt in ledger.attempts:
        if attempt.step.task_id.startswith(prefix) and attempt.outcome == "ok":
            costs_usd.append(attempt_usd(pools[attempt.decision.pool], attempt.step, attempt.usage))
            kind = "llm" if isinstance(attempt.step.call, LlmCall) else "tool"
            steps[kind].append(attempt.latency_s)
            output_tokens += attempt.usage.output_tokens
    return {
        "task_s": sorted(task.finished_s - task.submitted_s for task in tasks),
        "llm_s": sorted(steps["llm"]),
        "tool_s": sorted(steps["tool"]),
        "usd_per_task": math.fsum(costs_usd) / len(tasks),
        # A model asked twice does not always answer at the same length.
        "output_tokens": output_tokens / len(tasks),
        "goodput_per_s": sum(task.met_slo for task in tasks) / _open_s(tasks),
    }


def _open_s(tasks: list[TaskRecord]) -> float:
    """Seconds in which any task was under way: a load has pauses, for profiles."""
    open_s, until_s = 0.0, -math.inf
    for task in sorted(tasks, key=lambda one: one.submitted_s):
        open_s += max(0.0, task.finished_s - max(task.submitted_s, until_s))
        until_s = max(until_s, task.finished_s)
    return open_s


def print_row(row: Row) -> None:
    """Print one comparison."""
    print(
        f"\n{row.name}: {row.tasks} tasks; distance {row.distance_frac:.1%}; the machine's speed"
        f" swung by {row.swing_frac:.0%} between profiles"
    )
    for what, (measured, other) in row.figures.items():
        print(f"  {what:16} {measured:12.6g} {other:12.6g}  {row.error(what):+7.1%}")


def print_errors(title: str, rows: list[Row], floor: list[Row]) -> None:
    """Print how the errors of several runs are spread, beside how far live runs lie apart.

    Args:
        title: What is compared.
        rows: The runs.
        floor: Live runs, compared with live runs of the same tasks.
    """
    if not rows:
        return
    print(f"\n{title}: errors over {len(rows)} runs, in %; floor: {len(floor)} live runs, repeated")
    print(
        f"  {'':16} {'mean':>7} {'mean of |e|':>12} {'least':>7} {'median':>7} {'largest':>8}"
        f" {'floor, |e|':>12}"
    )
    for what in rows[0].figures:
        errors = [100.0 * row.error(what) for row in rows]
        apart = [100.0 * abs(row.error(what)) for row in floor]
        print(
            f"  {what:16} {statistics.fmean(errors):+7.1f}"
            f" {statistics.fmean(abs(e) for e in errors):12.1f} {min(errors):+7.1f}"
            f" {statistics.median(errors):+7.1f} {max(errors):+8.1f}"
            f" {f'{statistics.fmean(apart):12.1f}' if apart else '':>12}"
        )
