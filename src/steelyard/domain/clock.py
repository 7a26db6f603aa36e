"""Time as an interface: the log's clock is wall time live, and virtual in the simulator."""

from typing import Protocol


class Clock(Protocol):
    """Something that tells the time of the event log."""

    def now_s(self) -> float:
        """What time is it, in seconds since the clock's epoch? Never runs backwards."""
        ...
