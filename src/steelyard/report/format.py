"""Numbers for people: the one place where a figure is rounded and gets its unit.

Nothing here is used to compute. Three significant digits are shown, because no figure of a run or
a plan is known better than that.
"""

import math
import unicodedata

_MICRO_BELOW_USD = 1e-3
NONE = "-"
_ROUNDING_FRAC = 1e-9


def significant(value: float, digits: int = 3) -> str:
    """How is a plain number written?

    Args:
        value: Any number, in any unit.
        digits: Significant digits; digits before the decimal point are always all shown.

    Returns:
        The number with thousands separated, or in words where it is not finite.

    >>> significant(1234.5), significant(0.012345), significant(2.0)
    ('1,234', '0.0123', '2.00')
    """
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "unlimited" if value > 0 else "-unlimited"
    if value == 0.0:
        return "0"
    # Rounding first settles in which decade a 9.996 lies.
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if exponent < -6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def usd(value: float | None) -> str:
    """How is an amount of money written?

    Below a tenth of a cent in millionths of a dollar: one LLM step of a small model costs some
    tens of them, and `55.6 µ$` is read faster than `$0.0000556`.

    Args:
        value: USD; None where there is none.

    Returns:
        The amount with its unit.

    >>> usd(1234.567), usd(0.0123), usd(0.0000556), usd(-2.5), usd(0.0)
    ('$1,234.57', '$0.0123', '55.6 µ$', '-$2.50', '$0')
    """
    if value is None:
        return NONE
    if not math.isfinite(value):
        return f"{significant(value)} $"
    if value == 0.0:
        return "$0"
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size < _MICRO_BELOW_USD:
        return f"{sign}{significant(size * 1e6)} µ$"
    return f"{sign}${size:,.2f}" if size >= 1.0 else f"{sign}${significant(size)}"


def seconds(value: float | None) -> str:
    """How is a duration written?

    Args:
        value: Seconds; None where there is none.

    Returns:
        The duration in the unit that suits its size.

    >>> seconds(0.0000123), seconds(0.0456), seconds(12.34), seconds(754.0), seconds(9000.0)
    ('12.3 µs', '45.6 ms', '12.3 s', '12.6 min', '2.50 h')
    """
    if value is None:
        return NONE
    size = abs(value)
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s")):
        if 0.0 < size < limit:
            return f"{significant(value * factor)} {unit}"
    if size < 1.0:
        return "0 s"
    if size < 7200.0:
        return f"{significant(value / 60.0)} min"
    return f"{significant(value / 3600.0)} h"


def percent(value: float | None) -> str:
    """How is a fraction written?

    A fraction just below 1 is not shown as 100 %: a missed promise stays visible. What is less than
    a rounding error of the arithmetic behind it is 0.

    >>> percent(0.9345), percent(1.0), percent(0.9999), percent(4e-16), percent(None)
    ('93.5 %', '100 %', '99.99 %', '0 %', '-')
    """
    if value is None:
        return NONE
    if abs(value) < _ROUNDING_FRAC:
        return "0 %"
    if value == 1.0:
        return "100 %"
    if 0.9995 <= value < 1.0:
        return f"{math.floor(value * 1e4) / 1e2:.2f} %"
    return f"{significant(value * 100.0)} %"


def per_second(value: float | None, what: str) -> str:
    """How is a rate written?

    Args:
        value: Per second; None where there is none.
        what: Plural of what is counted.

    Returns:
        The rate per second, or per hour where it is small.

    >>> per_second(0.57, "tasks"), per_second(0.001, "tasks")
    ('0.570 tasks/s', '3.60 tasks/h')
    """
    if value is None:
        return NONE
    if 0.0 < abs(value) < 0.01:
        return f"{significant(value * 3600.0)} {what}/h"
    return f"{significant(value)} {what}/s"


def count(value: int) -> str:
    """How is a number of things written?

    >>> count(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def ratio(value: float | None) -> str:
    """How is a factor written?

    >>> ratio(1.234), ratio(None)
    ('1.23x', '-')
    """
    return NONE if value is None else f"{significant(value)}x"


def short_offering(offering: str) -> str:
    """How is an offering written in a sentence? Without its region, and its capacity type if usual.

    >>> short_offering("gcp/us-central1/n4a-standard-2/on_demand")
    'gcp/n4a-standard-2'
    >>> short_offering("gcp/us-central1/n4a-standard-2/spot"), short_offering("my-server")
    ('gcp/n4a-standard-2 (spot)', 'my-server')
    """
    parts = offering.split("/")
    if len(parts) != 4:
        return name(offering)
    capacity = "" if parts[3] == "on_demand" else f" ({parts[3]})"
    return name(f"{parts[0]}/{parts[2]}{capacity}")


def name(text: str, limit: int = 80) -> str:
    r"""How is a name that a user gave written? On one line, without control characters, not long.

    Control and direction characters would break XML, or show a name as another one.

    Args:
        text: Name of an agent, step, pool or task.
        limit: Characters shown; what is over is cut in the middle, as ends tell names apart.

    Returns:
        Text that still has to be escaped for HTML.

    >>> name("a\nb"), name("abcdefghij", limit=5)
    ('a b', 'ab…ij')
    """
    clean = "".join(
        " " if c.isspace() else "\ufffd" if unicodedata.category(c).startswith("C") else c
        for c in text
    )
    if len(clean) <= limit:
        return clean
    head = limit // 2
    return f"{clean[:head]}…{clean[len(clean) - (limit - head - 1) :]}"
