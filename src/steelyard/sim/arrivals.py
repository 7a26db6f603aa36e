"""When do tasks arrive that were recorded without arrivals? As in a trace, or as fitted."""

import itertools
import math

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.domain.workload import Workload, WorkloadTask
from steelyard.errors import WorkloadError

_HOURS = 24
_HOUR_S = 3600.0


class FittedArrivals(msgspec.Struct, frozen=True, kw_only=True):
    """A rate curve by hour of the day, and how tasks bunch on top of it.

    Attributes:
        rate_per_s: Tasks per second on average over the hours.
        hourly: Rate of each hour over the average; as many as hours seen, repeated from there on.
        burstiness: Standard deviation over mean of the gaps, the rate curve taken out; 1 is a
            Poisson process, above it tasks come in bursts.
    """

    rate_per_s: float
    hourly: tuple[float, ...] = (1.0,)
    burstiness: float = 1.0

    def draw_s(self, tasks: int, seed: int) -> list[float]:
        """When do the tasks arrive?

        A renewal process with gamma gaps in operational time, mapped through the inverse of the
        cumulative rate (Cinlar, Introduction to Stochastic Processes, 1975, section 4.7).

        Args:
            tasks: How many.
            seed: Of the draws.

        Returns:
            Seconds after the start, ascending.

        Raises:
            WorkloadError: A rate or factor makes no sense.
        """
        self._check()
        random = np.random.default_rng(seed)
        # So regular a beat is no longer told from a fixed one, and its shape would overflow.
        if self.burstiness < 1e-6:
            gaps = [1.0] * tasks
        else:
            shape = 1.0 / (self.burstiness * self.burstiness)
            gaps = [float(one) for one in random.gamma(shape, 1.0 / shape, tasks)]
        return self._unrolled(list(itertools.accumulate(gaps)))

    def _check(self) -> None:
        if not (self.rate_per_s > 0.0 and math.isfinite(self.rate_per_s)):
            raise WorkloadError(f"rate_per_s {self.rate_per_s:g} must be finite and above zero")
        if not self.hourly or min(self.hourly) < 0.0 or max(self.hourly) <= 0.0:
            raise WorkloadError(f"hourly {self.hourly} must be factors >= 0, one of them above 0")
        if not (self.burstiness >= 0.0 and math.isfinite(self.burstiness)):
            raise WorkloadError(f"burstiness {self.burstiness:g} must be finite and not negative")

    def _unrolled(self, marks: list[float]) -> list[float]:
        """Where does the cumulative rate reach these marks?"""
        times_s: list[float] = []
        hour, reached = 0, 0.0
        for mark in marks:
            while True:
                per_hour = self.rate_per_s * _HOUR_S * self.hourly[hour % len(self.hourly)]
                # Nobody arrives in an hour without a rate, not even at a mark of zero.
                if per_hour > 0.0 and mark <= reached + per_hour:
                    break
                reached += per_hour
                hour += 1
            times_s.append(hour * _HOUR_S + (mark - reached) / per_hour * _HOUR_S)
        return times_s


def fit_arrivals(times_s: list[float]) -> FittedArrivals:
    """Which process do these arrivals look like?

    The rate of each hour is its count over its length; burstiness is told from the gaps in units
    of the hour's mean gap, so that a busy hour does not look like a burst.

    Args:
        times_s: Arrivals, in any order and from any origin.

    Returns:
        The process.

    Raises:
        WorkloadError: Fewer than three arrivals, or all at one moment.

    >>> fit_arrivals([0.0, 10.0, 20.0, 30.0]).burstiness
    0.0
    """
    ordered = np.sort(np.asarray(times_s, dtype=np.float64))
    span_s = float(ordered[-1] - ordered[0]) if len(ordered) else 0.0
    if len(ordered) < 3 or span_s <= 0.0:
        raise WorkloadError(
            f"{len(ordered)} arrivals within {span_s:g} s tell no process; give at least three at "
            "different times, or a rate"
        )
    rate_per_s = (len(ordered) - 1) / span_s
    hourly = _hourly(ordered - ordered[0], span_s, rate_per_s)
    gaps = np.diff(ordered)
    hours = ((ordered[:-1] - ordered[0]) // _HOUR_S).astype(np.int64) % len(hourly)
    scaled = gaps * rate_per_s * np.array(hourly)[hours]
    burstiness = float(np.std(scaled) / np.mean(scaled))
    return FittedArrivals(
        rate_per_s=rate_per_s,
        hourly=hourly,
        burstiness=0.0 if burstiness < 1e-9 else burstiness,
    )


def _hourly(
    since_s: npt.NDArray[np.float64], span_s: float, rate_per_s: float
) -> tuple[float, ...]:
    """Rate of each hour of the day over the mean; of whole hours only, (1,) for less than two."""
    hours = int(span_s // _HOUR_S)
    if hours < 2:
        return (1.0,)
    counts = np.bincount((since_s // _HOUR_S).astype(np.int64), minlength=hours)[:hours]
    days = [counts[first::_HOURS] for first in range(min(hours, _HOURS))]
    factors = [float(np.mean(day)) / (rate_per_s * _HOUR_S) for day in days]
    mean = math.fsum(factors) / len(factors)
    return tuple(one / mean for one in factors)


def replayed_s(
    recorded_s: list[float], tasks: int, rate_per_s: float | None, seed: int
) -> list[float]:
    """When do tasks arrive if they come as in a recording?

    Consecutive arrivals from a drawn place on, from the beginning again where it ends; time is
    stretched so that the mean rate is the wanted one, and bursts keep their shape.

    Args:
        recorded_s: Recorded arrivals.
        tasks: How many are wanted.
        rate_per_s: Wanted mean rate; None keeps the recorded one.
        seed: Of the draw.

    Returns:
        Seconds, ascending, the first at 0.

    Raises:
        WorkloadError: The recording has no rate, or the wanted one is not above zero.
    """
    fitted = fit_arrivals(recorded_s)
    if rate_per_s is not None and not (rate_per_s > 0.0 and math.isfinite(rate_per_s)):
        raise WorkloadError(f"rate_per_s {rate_per_s:g} must be finite and above zero")
    gaps = np.diff(np.sort(np.asarray(recorded_s, dtype=np.float64)))
    first = int(np.random.default_rng(seed).integers(len(gaps)))
    drawn = gaps[(first + np.arange(max(0, tasks - 1))) % len(gaps)]
    times = np.concatenate(([0.0], np.cumsum(drawn)))[:tasks]
    wanted_per_s = fitted.rate_per_s if rate_per_s is None else rate_per_s
    if len(times) > 1 and times[-1] > 0.0:
        # The drawn stretch may be busier than the whole, so it is its own rate that is set.
        times = times * ((len(times) - 1) / times[-1] / wanted_per_s)
    return [float(one) for one in times]


def with_arrivals(workload: Workload, times_s: list[float], seed: int) -> Workload:
    """What is the workload with these arrivals?

    Tasks are drawn without replacement as far as they go, then all of them again.

    Args:
        workload: Tasks; their own arrivals are not read.
        times_s: One arrival per task wanted, ascending.
        seed: Of the draw.

    Returns:
        The workload; a task drawn again gets a `#` and a number behind its id.

    Raises:
        WorkloadError: There is no task to draw.
    """
    if not workload.tasks:
        raise WorkloadError(f"workload {workload.name} holds no task; give one that does")
    random = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < len(times_s):
        order.extend(int(one) for one in random.permutation(len(workload.tasks)))
    tasks = [
        _arriving(workload.tasks[index], number // len(workload.tasks), arrival_s)
        for number, (index, arrival_s) in enumerate(zip(order, times_s, strict=False))
    ]
    return Workload(
        name=workload.name,
        tasks=tuple(tasks),
        source=f"{workload.source}, with {len(times_s)} drawn arrivals (seed={seed})",
    )


def _arriving(task: WorkloadTask, turn: int, arrival_s: float) -> WorkloadTask:
    name = f"{task.task_id}#{turn}" if turn else task.task_id
    return msgspec.structs.replace(task, task_id=name, arrival_s=arrival_s)
