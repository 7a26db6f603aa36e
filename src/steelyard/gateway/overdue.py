"""Gives up answers that take too long: one timer for all of them."""

import asyncio
from typing import Protocol


class Limited(Protocol):
    """What must not take for ever."""

    def time_out(self) -> None:
        """It takes too long."""
        ...


class Overdue:
    """Tells what is under way when its time is over.

    A timer of the event loop for each request would cost more than all that is done here: nearly
    every request ends long before its time.
    """

    def __init__(self) -> None:
        self._due_s: dict[Limited, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_s = 0.0

    def begin(self, one: Limited, limit_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """Something has begun.

        Args:
            one: What.
            limit_s: How long it may take.
            loop: The event loop.
        """
        due_s = loop.time() + limit_s
        self._due_s[one] = due_s
        if self._timer is None or due_s < self._looks_s:
            self._look_at(due_s, loop)

    def end(self, one: Limited) -> None:
        """It is over, in whatever way; what never began may end, too."""
        self._due_s.pop(one, None)

    def _look_at(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_s = due_s
        self._timer = loop.call_at(due_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        for one in [one for one, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[one]
            one.time_out()
        if self._due_s:
            self._look_at(min(self._due_s.values()), loop)
