"""Deadlines and budgets as people write them."""

import re

from steelyard.errors import ConfigError
from steelyard.runtime.open_tasks import TaskLimits

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def limits_of(deadline: str | None, budget_usd: float | None) -> TaskLimits:
    """Deadline and budget of a command's options.

    Args:
        deadline: A duration such as `60s`; None without one.
        budget_usd: In USD; None without a limit.

    Raises:
        ConfigError: One of them makes no sense.
    """
    after_s = None if deadline is None else seconds(deadline)
    if budget_usd is not None and not budget_usd > 0.0:
        raise ConfigError(f"--budget is {budget_usd} USD; it must be greater than 0")
    return TaskLimits(deadline_after_s=after_s, budget_usd=budget_usd)


def seconds(duration: str) -> float:
    """How long is a duration, in seconds?

    Args:
        duration: A number with ms, s, m, h or d; seconds without a unit.

    Raises:
        ConfigError: It is none.

    >>> seconds("90s"), seconds("1.5m"), seconds("2")
    (90.0, 90.0, 2.0)
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ConfigError(f"{duration!r} is no duration; write a number with ms, s, m, h or d")
    return float(found.group(1)) * _SECONDS[found.group(2) or "s"]
