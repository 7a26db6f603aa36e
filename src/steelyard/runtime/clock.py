"""The wall clock, which never runs backwards."""

import time


class WallClock:
    """Seconds since 1970, read once and carried on by the monotonic clock.

    A correction of the machine's clock therefore never reorders a log or moves a deadline.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """What time is it, in seconds since 1970?"""
        return self._offset_s + time.monotonic()
