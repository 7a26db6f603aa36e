"""How much may retries add to the load? A share of what is asked, so that they end no outage."""

_FRAC = 0.2
_RESERVE = 10.0


class RetryBudget:
    """Every request earns a fifth of a retry; unused ones are kept up to a small reserve.

    Without it, a failing fleet gets up to three times the load just when it can bear the least.
    A share of 20 % with a floor: Finagle's default (twitter.github.io/finagle, RetryBudget).

    >>> budget = RetryBudget()
    >>> sum(budget.take() for _ in range(20))
    10
    """

    def __init__(self) -> None:
        self._left = _RESERVE

    def earn(self) -> None:
        """A request has come."""
        if self._left < _RESERVE:
            self._left += _FRAC

    def take(self) -> bool:
        """May one more attempt be made? It counts as made then."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
