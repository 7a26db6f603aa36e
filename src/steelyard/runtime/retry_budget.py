"""How much may retries add to the load? A share of what is asked, so that they end no outage."""

import asyncio
from collections.abc import Callable

import msgspec

from steelyard.domain.task import Step
from steelyard.errors import PoolError
from steelyard.runtime.retry import pause_before_retry_s

_FRAC = 0.2
_RESERVE = 10.0
# Beyond the budget a durable task's step tries again no sooner. When a node is lost, all that ran
# there fails at once; no client would ask for it again, and its worker's slots bound the load.
_BEYOND_S = 1.0


class RetryBudget:
    """Every request earns a fifth of a retry; unused ones are kept up to a small reserve.

    Without it, a failing fleet gets up to three times the load just when it can bear the least.
    A share of 20 % with a floor: Finagle's default (twitter.github.io/finagle, RetryBudget).

    Args:
        frac: What a request earns.
        left: What there is at first.

    >>> budget = RetryBudget()
    >>> sum(budget.take() for _ in range(20))
    10
    """

    def __init__(self, frac: float = _FRAC, left: float = _RESERVE) -> None:
        self.frac = frac
        self._left = left

    def earn(self) -> None:
        """A request has come."""
        if self._left < _RESERVE:
            self._left += self.frac

    def has(self, attempts: float) -> bool:
        """Is there enough for so many attempts?"""
        return self._left >= attempts

    def take(self, attempts: float = 1.0) -> bool:
        """May one more attempt be made, that counts as so many? It counts as made then."""
        if not self.has(attempts):
            return False
        self._left -= attempts
        return True


class Retries:
    """Decides of failed attempts whether and when there is another one.

    Args:
        now_s: The log's clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._budget = RetryBudget()

    def earn(self) -> None:
        """A step has come."""
        self._budget.earn()

    async def next_attempt(self, step: Step, error: PoolError, first: int) -> Step:
        """Wait for a step's next attempt.

        Beyond the budget there is none, but for steps of durable tasks, which wait longer.

        Args:
            step: Its last attempt.
            error: Why that one failed.
            first: The number with which the step came.

        Returns:
            The next attempt.

        Raises:
            PoolError: The error, when there is no next attempt.
        """
        pause_s = pause_before_retry_s(error, step.attempt - first, self._now_s(), step.deadline_s)
        if pause_s is None:
            raise error
        if not self._budget.take():
            pause_s = max(pause_s, _BEYOND_S)
            ends_s = step.deadline_s
            if step.fence is None or (ends_s is not None and self._now_s() + pause_s >= ends_s):
                raise error
        await asyncio.sleep(pause_s)
        return msgspec.structs.replace(step, attempt=step.attempt + 1)
