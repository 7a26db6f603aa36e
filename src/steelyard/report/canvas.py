# Matplotlib leaves **kwargs without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""From a matplotlib figure to an inline SVG that is legible on light and on dark pages.

Matplotlib's global state is left alone: no pyplot, and settings hold only inside `drawing`.
"""

import io
import math
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Stands for the page's own text colour and is replaced by `currentColor` in the SVG.
INK = "#010203"
GRID = "#8888884d"

# Okabe & Ito's colour-blind safe hues, the light ones darkened: each has a contrast of at least 3
# on white and on #14171c.
HUES = ("#0072b2", "#d55e00", "#009e73", "#bb6a9a", "#a87f00", "#3a8fc4", "#8a8a8a")
HARDWARE_HUES = {"arm": "#009e73", "x86": "#0072b2", "gpu": "#d55e00", "vendor": "#bb6a9a"}

_WIDTH_IN = 7.6
_MOST_DECADES = 4.0
# Keys are Any, as matplotlib types them from 3.11 on as a union of all their names.
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    # Names of pools and tasks may hold dollar signs, and amounts do; neither is a formula.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_ID = re.compile(r'(\bid="|url\(#|href="#)')


class Drawing:
    """A figure being drawn; `svg` is set when the `drawing` block ends.

    Args:
        figure: What to draw on.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def drawing(plot: str, height_in: float) -> Generator[Drawing]:
    """Draw a figure and turn it into SVG text, byte for byte the same for the same input.

    Args:
        plot: Short name, unique on a page; ids inside the SVG begin with it.
        height_in: Height in inches of 72 points.

    Yields:
        The drawing.
    """
    with rc_context({**_SETTINGS, "svg.hashsalt": plot}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        drawn = Drawing(figure)
        yield drawn
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    drawn.svg = _ID.sub(lambda found: f"{found.group(1)}{plot}-", svg).strip()


def axes(drawn: Drawing) -> Axes:
    """The only axes of a drawing, with a light grid along x."""
    made = drawn.figure.add_subplot()
    made.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
    return made


def plain_log_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, not as powers of ten."""
    low, high = axis.get_view_interval()
    # Three labels a decade would run into each other on an axis of many decades.
    crowded = low > 0.0 and math.log10(high / low) > _MOST_DECADES
    subs = (1.0,) if crowded else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, position: int | None) -> str:
    """Matplotlib's own formatter writes powers as formulas, which `parse_math` turns off."""
    del position
    return f"{value:g}"


def hue(index: int) -> str:
    """The colour of the `index`-th series."""
    return HUES[index % len(HUES)]
