"""When to try again: by the class of the error, with growing pauses, never past a deadline."""

from steelyard.errors import PoolOverloadedError, SteelyardError

MAX_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.1
_GROWTH = 4.0
_LONGEST_PAUSE_S = 30.0


def pause_before_retry_s(
    error: SteelyardError, attempt: int, now_s: float, deadline_s: float | None
) -> float | None:
    """How long to wait before the next attempt? None when there must be none.

    `pause = 0.1 * 4^attempt`, at least what the pool asked for; there is no next attempt when it
    could only start after the deadline.

    Args:
        error: Why the last attempt failed.
        attempt: Its number within this run, from 0.
        now_s: Time on the log's clock.
        deadline_s: The task's deadline on that clock; None without one.

    Returns:
        Seconds, or None.

    >>> from steelyard.errors import PoolUnavailableError
    >>> pause_before_retry_s(PoolUnavailableError("down"), 1, 0.0, None)
    0.4
    >>> pause_before_retry_s(PoolUnavailableError("down"), 1, 0.0, 0.3) is None
    True
    """
    if not error.retryable or attempt + 1 >= MAX_ATTEMPTS:
        return None
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * _GROWTH**attempt)
    if isinstance(error, PoolOverloadedError):
        pause_s = max(pause_s, error.retry_after_s)
    if deadline_s is not None and now_s + pause_s >= deadline_s:
        return None
    return pause_s
