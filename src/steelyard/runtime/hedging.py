"""When is an answer so late that a second attempt is worth its price? By what was measured.

Dean and Barroso, *The Tail at Scale*, Communications of the ACM 56(2), 2013: send a second request
once the first has been out for longer than 95 % of them take; the first answer counts.
"""

from bisect import bisect_left, insort
from collections import deque

from steelyard.domain.decision import Decision
from steelyard.fleet.lessons import MOST_ERROR_FRAC
from steelyard.runtime.retry_budget import RetryBudget

_QUANTILE = 0.95
# Until so many answers of a pool were measured, its tail is taken to begin at this factor.
_FEWEST, _FIRST_FACTOR = 20, 3.0
_KEPT = 200
# A factor beyond these says that the prediction is wrong, or that nothing was ever late.
_LEAST_FACTOR, _MOST_FACTOR = 1.5, 20.0
# Shorter waits are the event loop's own.
_SHORTEST_S = 0.05


class Tail:
    """How long after its prediction does an answer begin, at most, in 19 of 20 cases?

    >>> tail = Tail()
    >>> for late in range(100):
    ...     tail.add(1.0 + late / 100.0)
    >>> round(tail.factor, 2)
    1.95
    """

    __slots__ = ("_came", "_sorted")

    def __init__(self) -> None:
        self._came: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, ratio: float) -> None:
        """An answer began after so many times the predicted seconds."""
        if len(self._came) == _KEPT:
            del self._sorted[bisect_left(self._sorted, self._came.popleft())]
        self._came.append(ratio)
        insort(self._sorted, ratio)

    @property
    def factor(self) -> float:
        """The 95th percentile of what was measured over what was predicted, within bounds."""
        count = len(self._sorted)
        if count < _FEWEST:
            return _FIRST_FACTOR
        found = self._sorted[int(_QUANTILE * count)]
        return min(_MOST_FACTOR, max(_LEAST_FACTOR, found))


class Hedges:
    """Decides when a step gets a second attempt, and whether it may.

    Args:
        frac: Share of the steps that may get one.
    """

    def __init__(self, frac: float) -> None:
        # One may be made at once; the others are earned, so that a fleet on which everything is
        # late gets no more than its share.
        self._budget = RetryBudget(frac, 1.0)
        self._tails: dict[tuple[str, bool], Tail] = {}

    def change(self, frac: float) -> None:
        """From now on this share of the steps."""
        self._budget.frac = frac

    @property
    def on(self) -> bool:
        """May any step get one?"""
        return self._budget.frac > 0.0

    def earn(self) -> None:
        """A step has come."""
        self._budget.earn()

    def after_s(self, decision: Decision, *, streams: bool) -> float:
        """How long after its placement is an answer late?

        At the tail of the prediction; with a deadline already when half of the slack is gone,
        unless the answer is no later than predictions are wrong:
        `min(tail, max(1.25 * predicted, slack / 2))`.

        Args:
            decision: Where the step is, and what is expected of it.
            streams: Whether the first token is seen; otherwise only the whole answer is.

        Returns:
            Seconds.
        """
        predicted_s = _predicted_s(decision, streams=streams)
        late_s = predicted_s * self._tail(decision.pool, streams=streams).factor
        if decision.slack_s is not None:
            unsure_s = predicted_s * (1.0 + MOST_ERROR_FRAC)
            late_s = min(late_s, max(unsure_s, decision.slack_s / 2.0))
        return late_s

    def began(self, decision: Decision, after_s: float, *, streams: bool) -> None:
        """An answer began so long after its placement, or was not waited for any longer."""
        ratio = after_s / _predicted_s(decision, streams=streams)
        self._tail(decision.pool, streams=streams).add(ratio)

    def affords(self, first: Decision, second: Decision) -> bool:
        """Is a second attempt within the share? One that is dearer than the first counts more."""
        return self._budget.has(_weight(first, second))

    def take(self, first: Decision, second: Decision) -> None:
        """It is made."""
        self._budget.take(_weight(first, second))

    def _tail(self, pool: str, *, streams: bool) -> Tail:
        return self._tails.setdefault((pool, streams), Tail())


def _predicted_s(decision: Decision, *, streams: bool) -> float:
    predicted_s = decision.predicted_finish_s
    if streams:
        predicted_s = decision.predicted_wait_s + decision.predicted_ttft_s
    return max(_SHORTEST_S, predicted_s)


def _weight(first: Decision, second: Decision) -> float:
    """How many attempts does the second one count as? As many as it costs of the first."""
    if first.predicted_cost_usd <= 0.0:
        return 1.0
    return max(1.0, second.predicted_cost_usd / first.predicted_cost_usd)
