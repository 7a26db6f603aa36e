# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false
"""Providers over time as a plot: what each answered, failed and cost, when it was left out."""

from typing import NamedTuple

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from steelyard.ledger.providers_over_time import ProviderOverTime, ProvidersOverTime
from steelyard.report.canvas import GRID, INK, drawing, hue
from steelyard.report.format import name

_FAILED = "#c0392b"
_CONDITIONS = {"breaker open": "#d55e0066", "replicas down": "#8a8a8a40", "down": "#8a8a8a90"}
_MOST_PROVIDERS = 6
# Width of a label's line of text, as a share of the plot's.
_LABEL_FRAC = 0.025


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that people know of a moment, and the log does not.

    Attributes:
        t_s: When, on the log's clock.
        label: What, in a few words.
        pool: Whose it is; empty for all.
    """

    t_s: float
    label: str
    pool: str = ""


def providers_plot(told: ProvidersOverTime, marks: tuple[Mark, ...] = ()) -> str:
    """Who answered what when, and who was left out?

    Args:
        told: Providers over time.
        marks: Moments to be marked.

    Returns:
        SVG: a row per provider (answers and failures per second, shaded where its breaker was open
        or its replicas were down), below them the shares of spend; empty without providers. Six
        providers are shown, those that cost most.
    """
    shown = _shown(told)
    if not shown:
        return ""
    heights = [1.5] * len(shown) + [1.2]
    with drawing("providers", 0.9 + sum(heights)) as drawn:
        rows = drawn.figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        top = 1.08 * max(max(one.answered_per_s + one.failed_per_s) for _, one in shown)
        for row, (provider, one) in zip(rows, shown, strict=False):
            _provider(row, one, told.bucket_s, name(provider, 30))
            row.set_ylim(0.0, top or 1.0)
        _spend(rows[-1], shown, told.bucket_s)
        placed = _placed(marks, told, shown)
        for number, row in enumerate(rows):
            _marks(row, placed, number)
            row.set_xlim(0.0, told.span_s)
        rows[-1].set_xlabel("time since the first task arrived, s")
        drawn.figure.legend(handles=_legend(), loc="outside upper left", ncols=6)
    return drawn.svg


def _shown(told: ProvidersOverTime) -> list[tuple[str, ProviderOverTime]]:
    dearest = sorted(told.providers, key=lambda one: (-told.providers[one].spend_usd, one))
    return [(one, told.providers[one]) for one in sorted(dearest[:_MOST_PROVIDERS])]


def _starts_s(values: tuple[object, ...], bucket_s: float) -> list[float]:
    return [number * bucket_s for number in range(len(values) + 1)]


def _provider(row: Axes, one: ProviderOverTime, bucket_s: float, title: str) -> None:
    edges_s = _starts_s(one.answered_per_s, bucket_s)
    row.stairs(one.answered_per_s, edges_s, fill=True, color=hue(0), alpha=0.55)
    row.stairs(one.failed_per_s, edges_s, fill=True, color=_FAILED)
    for span in one.unwell:
        row.axvspan(span.start_s, span.end_s, color=_CONDITIONS[span.condition], linewidth=0.0)
    row.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    row.set_ylabel("steps/s")
    row.set_title(title, fontweight="bold")


def _spend(row: Axes, shown: list[tuple[str, ProviderOverTime]], bucket_s: float) -> None:
    parts = [[100.0 * (part or 0.0) for part in one.spend_frac] for _, one in shown]
    levels = np.vstack([np.zeros(len(parts[0])), np.cumsum(np.array(parts), axis=0)])
    edges_s = _starts_s(shown[0][1].spend_frac, bucket_s)
    # From the highest down: each hides what the one before shows of its share.
    for number in reversed(range(len(shown))):
        row.stairs(levels[number + 1], edges_s, fill=True, color=hue(number + 2))
    for number, (provider, _) in enumerate(shown):
        smooth = np.convolve(np.array(parts[number]), np.ones(min(9, len(edges_s) - 1)), "same")
        # Where it is highest, so that no second legend is needed.
        at = int(np.argmax(smooth))
        middle = float(levels[number : number + 2, at].mean())
        row.text(
            (at + 0.5) * bucket_s, middle, name(provider, 16),
            ha="center", va="center", color="white", fontsize=8, fontweight="bold",
        )  # fmt: skip
    row.set_ylim(0.0, 100.0)
    row.set_ylabel("% of spend")


class _Placed(NamedTuple):
    """A mark, and where its label stands.

    Attributes:
        t_s: Seconds since the first arrival.
        label: What is written.
        row: The row with the label: its provider's, the first one for marks of all.
        leftwards: Whether the label stands before the line: the next line is near.
    """

    t_s: float
    label: str
    row: int
    leftwards: bool


def _placed(
    marks: tuple[Mark, ...], told: ProvidersOverTime, shown: list[tuple[str, ProviderOverTime]]
) -> list[_Placed]:
    found = sorted(
        (mark.t_s - told.first_s, name(mark.label, 24), _row_of(mark.pool, shown))
        for mark in marks
        if 0.0 <= mark.t_s - told.first_s <= told.span_s
    )
    near_s = _LABEL_FRAC * told.span_s
    # The plot's right edge is a line, too; left of its left edge there is only the axis.
    next_s = [*(t_s for t_s, _, _ in found[1:]), told.span_s][: len(found)]
    return [
        _Placed(t_s, label, row, leftwards=end_s - t_s < near_s < t_s)
        for (t_s, label, row), end_s in zip(found, next_s, strict=True)
    ]


def _row_of(pool: str, shown: list[tuple[str, ProviderOverTime]]) -> int:
    """The row of the pool's provider; the first one for marks of all."""
    return next((row for row, (_, one) in enumerate(shown) if pool in one.pools), 0)


def _marks(row: Axes, placed: list[_Placed], number: int) -> None:
    for mark in placed:
        row.axvline(mark.t_s, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        if mark.row == number:
            row.annotate(
                mark.label, (mark.t_s, 1.0), xycoords=("data", "axes fraction"),
                xytext=(-2.0 if mark.leftwards else 2.0, -2.0), textcoords="offset points",
                fontsize=7, rotation=90.0, ha="right" if mark.leftwards else "left", va="top",
                color=INK,
            )  # fmt: skip


def _legend() -> list[Patch | Line2D]:
    return [
        Patch(color=hue(0), alpha=0.55, label="answered"),
        Patch(color=_FAILED, label="failed"),
        *(Patch(color=colour, label=condition) for condition, colour in _CONDITIONS.items()),
        Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (3, 2)), label="marked"),
    ]
