"""Numbers that are compared with one another: those of one row or column share one unit.

A lone figure has the unit that suits its size (`format`). Side by side, `242 µ$` and `$1.20` are
read as if the first were the larger one.
"""

import math
from collections.abc import Sequence

from steelyard.report.format import NONE, per_second, seconds, significant, usd

# Millionths of a dollar are read well up to some thousands of them.
_MICRO_BELOW_USD, _MICRO_UP_TO_USD = 1e-3, 1e-2
_HOURLY_BELOW_PER_S = 0.01
# Of a minute or an hour, that the shortest must be: half a second is no hundredth of a minute.
_LEAST_FRAC = 0.1
# From how many seconds on, how long one is, and its name.
_TIMES = ((7200.0, 3600.0, "h"), (600.0, 60.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"))
_SHORTEST = (1e-6, "µs")


def usd_alike(values: Sequence[float | None]) -> tuple[str, ...]:
    """How are amounts of money written beside each other? All in $, or all in millionths of it.

    Args:
        values: USD; None where there is none.

    Returns:
        The amounts with their unit.

    >>> usd_alike([0.0000556, 0.0123, None, 0.0]), usd_alike([0.0000556, 0.0])
    (('$0.0000556', '$0.0123', '-', '$0'), ('55.6 µ$', '0 µ$'))
    >>> usd_alike([0.0000556, 0.00452])
    ('55.6 µ$', '4,520 µ$')
    """
    sizes = [abs(one) for one in values if one]
    if sizes and min(sizes) < _MICRO_BELOW_USD and max(sizes) < _MICRO_UP_TO_USD:
        return tuple(_with_unit(one, 1e-6, "µ$") for one in values)
    return tuple(_in_usd(one) for one in values)


def _in_usd(value: float | None) -> str:
    if value is None or not 0.0 < abs(value) < _MICRO_BELOW_USD:
        return usd(value)
    return f"{'-' if value < 0.0 else ''}${significant(abs(value))}"


def seconds_alike(values: Sequence[float | None]) -> tuple[str, ...]:
    """How are durations written beside each other? All in the unit of the longest.

    Minutes or hours are taken only where the shortest is a tenth of one or more.

    Args:
        values: Seconds; None where there is none.

    Returns:
        The durations with their unit.

    >>> seconds_alike([0.0456, 12.34, None]), seconds_alike([0.0456, 0.002])
    (('0.0456 s', '12.3 s', '-'), ('45.6 ms', '2.00 ms'))
    >>> seconds_alike([0.5, 900.0]), seconds_alike([300.0, 900.0])
    (('0.500 s', '900 s'), ('5.00 min', '15.0 min'))
    """
    longest = _largest(values)
    if longest == 0.0:
        return tuple(seconds(one) for one in values)
    shortest = min(abs(one) for one in values if one)
    shown = (
        (size_s, unit)
        for least_s, size_s, unit in _TIMES
        if longest >= least_s and (size_s <= 1.0 or shortest >= _LEAST_FRAC * size_s)
    )
    size_s, unit = next(shown, _SHORTEST)
    return tuple(_with_unit(one, size_s, unit) for one in values)


def per_second_alike(values: Sequence[float | None], what: str) -> tuple[str, ...]:
    """How are rates written beside each other? Per hour where the highest is small.

    Args:
        values: Per second; None where there is none.
        what: Plural of what is counted.

    Returns:
        The rates with their unit.

    >>> per_second_alike([0.001, 0.57], "tasks"), per_second_alike([0.001, 0.0005], "tasks")
    (('0.00100 tasks/s', '0.570 tasks/s'), ('3.60 tasks/h', '1.80 tasks/h'))
    """
    highest = _largest(values)
    if highest == 0.0:
        return tuple(per_second(one, what) for one in values)
    if highest < _HOURLY_BELOW_PER_S:
        return tuple(_with_unit(one, 1.0 / 3600.0, f"{what}/h") for one in values)
    return tuple(_with_unit(one, 1.0, f"{what}/s") for one in values)


def _largest(values: Sequence[float | None]) -> float:
    sizes = (abs(one) for one in values if one is not None and math.isfinite(one))
    return max(sizes, default=0.0)


def _with_unit(value: float | None, factor: float, unit: str) -> str:
    if value is None:
        return NONE
    return f"{significant(value / factor)} {unit}" if math.isfinite(value) else significant(value)
