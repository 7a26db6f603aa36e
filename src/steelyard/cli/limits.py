"""Deadlines, budgets and ids of tasks as people write them."""

import math
import re

from steelyard.errors import ConfigError
from steelyard.runtime.open_tasks import TaskLimits

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
# Longer ones are slips; moments that far off are no dates.
_LONGEST_S = 100 * 366 * 86400.0
_LONGEST_ID = 128
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def limits_of(deadline: str | None, budget_usd: float | None) -> TaskLimits:
    """Deadline and budget of a command's options.

    Args:
        deadline: A duration such as `60s`; None without one.
        budget_usd: In USD; None without a limit.

    Raises:
        ConfigError: One of them makes no sense.
    """
    after_s = None if deadline is None else seconds("--deadline", deadline)
    if budget_usd is not None and not 0.0 < budget_usd < math.inf:
        raise ConfigError(
            f"--budget is {budget_usd} USD; it must be greater than 0; without it, there is none"
        )
    return TaskLimits(deadline_after_s=after_s, budget_usd=budget_usd)


def seconds(option: str, duration: str, *, may_be_none: bool = False) -> float:
    """How long is a duration, in seconds?

    Args:
        option: Where it was written, for the error.
        duration: A number with ms, s, m, h or d; seconds without a unit.
        may_be_none: Whether 0 is one, too.

    Raises:
        ConfigError: It is none, or over a hundred years.

    >>> seconds("--every", "90s"), seconds("--every", "1.5m"), seconds("--every", "2")
    (90.0, 90.0, 2.0)
    """
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise ConfigError(
            f"{option} {duration!r} is no duration; write a number with ms, s, m, h or d"
        )
    told_s = float(found.group(1)) * _SECONDS[found.group(2) or "s"]
    if told_s > _LONGEST_S:
        raise ConfigError(f"{option} {duration!r} is over a hundred years; take less")
    if told_s == 0.0 and not may_be_none:
        raise ConfigError(f"{option} {duration!r} must be longer than 0")
    return told_s


def check_id(option: str, task_id: str) -> None:
    """Refuse what could be no id of a task in a log, a URL or a table.

    Args:
        option: Where it was written, for the error.
        task_id: The id.

    Raises:
        ConfigError: It is empty, too long, or has characters that are not printed.
    """
    if not 0 < len(task_id) <= _LONGEST_ID or not task_id.isprintable():
        raise ConfigError(
            f"{option} {task_id[:80]!r} is no id; take 1 to {_LONGEST_ID} printable characters"
        )
