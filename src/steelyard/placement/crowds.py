"""What do first steps of tasks meet where more tasks wait to begin than a replica can serve?

A chain of steps that is admitted step by step competes with every new one at each of its steps, so
that under overload tasks die half-way (ADR 38). So a first step stands behind whole tasks.
"""

from typing import Any

from steelyard.domain.task import Step
from steelyard.perf.predict import Number, pick


def is_new(step: Step, *, begun: bool) -> bool:
    """Does the step begin a task that has a deadline? Such give way to tasks that have begun."""
    return not begun and step.deadline_s is not None


def crowd_s(later_sum_s: Number, cap: Number) -> Number:
    """How long does a replica need for what follows the first steps that wait there?

    Begun tasks go before it: a first step is not in time because there are few steps in front, but
    if the tasks in front can be done before it must begin. The mean time between ends of tasks is
    the work of a task over the places (Little's law), and of their first steps the queue tells.

    Args:
        later_sum_s: Seconds for which later steps of the tasks in front will run.
        cap: Steps that run at once.

    Returns:
        Seconds.

    >>> crowd_s(30.0, 8.0)
    3.75
    """
    seconds: Any = later_sum_s / cap
    crowd: Number = seconds
    return crowd


def spared_s(crowd_s: Number, remaining_s: float, service_s: Number, error_frac: Number) -> Number:
    """How much slack must the first step of a task bring that comes in a crowd?

    What begins at its latest start is late by the least delay of a later step. Where others wait
    to begin, one of them may begin in its place. So it is given up by the mean of what remains,
    not by the mean less two deviations, as a task that has begun is (`scoring.grace_s`).

    Args:
        crowd_s: Seconds that the replica needs for what follows the first steps in front.
        remaining_s: Expected seconds from the end of the step to the end of its task.
        service_s: Predicted seconds of service of the step itself.
        error_frac: By how much service times of the pool may be off.

    Returns:
        Seconds; 0 without a crowd.

    >>> float(spared_s(0.0, 5.0, 1.0, 0.1)), float(spared_s(2.0, 5.0, 1.0, 0.5))
    (0.0, 3.0)
    """
    nothing: Any = 0.0
    spared: Number = pick(crowd_s > 0.0, (service_s + remaining_s) * error_frac, nothing)
    return spared
