"""Why can none of these machines run a step? The commonest kind of obstacle, at its mildest."""

import re
from collections.abc import Iterable

from steelyard.planner.capacity import Fitness

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
# Obstacles that say that nothing is known, rather than that something is too slow or too small.
_UNKNOWN = ("no ", "its CPU", "its figures")


def main_obstacle(cells: Iterable[Fitness]) -> str:
    """What stands in the way most often?

    Obstacles that differ in numbers only are of one kind. A limit that is missed says more than
    figures that are missing, so it goes first; of one kind the smallest first number is told,
    which is that of the machine that misses by least.

    Args:
        cells: How machines do with one step class.

    Returns:
        One obstacle; empty if none of the cells has one.
    """
    told = sorted({c.obstacle for c in cells if c.obstacle}, key=lambda o: (_first_number(o), o))
    known = [one for one in told if not one.startswith(_UNKNOWN)] or told
    kinds = [_NUMBER.sub("#", one) for one in known]
    if not kinds:
        return ""
    commonest = max(sorted(set(kinds)), key=kinds.count)
    return known[kinds.index(commonest)]


def _first_number(obstacle: str) -> float:
    found = _NUMBER.search(obstacle)
    return float(found.group()) if found else 0.0
