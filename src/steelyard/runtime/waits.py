"""Does a task do anything but wait? Then it needs no worker, and is parked in the store."""

import asyncio
import contextlib
from collections.abc import Callable, Generator

import msgspec


class Wait(msgspec.Struct):
    """One thing that a task waits for.

    Attributes:
        until_s: When the wait is over at the latest, on the log's clock; None without an end.
        signals: How many signals were known when none of them ended the wait; None when it waits
            for no signal.
        child: Id of the child task whose end it waits for; empty without one.
    """

    until_s: float | None = None
    signals: int | None = None
    child: str = ""


class Waits:
    """Counts what a task is doing.

    A task has *lines*: one, and in a gather one per branch. When every line waits and no other
    step runs, the task is idle. Code between steps is on a line that does not wait.
    """

    def __init__(self) -> None:
        self._lines = 1
        self._busy = 0
        self._waits: list[Wait] = []
        self._children: dict[str, Wait] = {}
        self._when_idle: Callable[[], None] | None = None
        self._after_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def when_idle(self, after_s: float, call: Callable[[], None]) -> None:
        """Call back when the task has been idle for a while, each time that it becomes so."""
        self._after_s, self._when_idle = after_s, call

    @property
    def idle(self) -> bool:
        """Does the task only wait?"""
        return self._busy == 0 and len(self._waits) >= max(1, self._lines)

    def begin(self) -> None:
        """A step begins."""
        self._busy += 1
        if self._timer is not None:
            self._look()

    def end(self) -> None:
        """A step has ended."""
        self._busy -= 1
        if self._waits:
            self._look()

    @contextlib.contextmanager
    def waiting(self, wait: Wait) -> Generator[None, None, None]:
        """The running step only waits while the block runs."""
        self._add(wait)
        try:
            yield
        finally:
            self._remove(wait)

    def child_waits(self, child: str, *, nobody_runs_it: bool) -> None:
        """Whether a child that a running step waits for is run by anybody.

        While it is, its parent stays, to go on at once.
        """
        known = self._children.get(child)
        if nobody_runs_it and known is None:
            self._children[child] = Wait(child=child)
            self._add(self._children[child])
        elif not nobody_runs_it and known is not None:
            self._remove(self._children.pop(child))

    @contextlib.contextmanager
    def forked(self, branches: int) -> Generator[None, None, None]:
        """A line is several while the block runs."""
        self._lines += branches - 1
        try:
            yield
        finally:
            self._lines += 1
            self._look()

    def branch_ended(self) -> None:
        """One of them has ended."""
        self._lines -= 1
        self._look()

    def until_s(self) -> float | None:
        """When is the first wait over? None when none has an end."""
        ends = [wait.until_s for wait in self._waits if wait.until_s is not None]
        return min(ends, default=None)

    def signals(self) -> int | None:
        """How many signals are of no use to any wait? None when none waits for one."""
        counts = [wait.signals for wait in self._waits if wait.signals is not None]
        return min(counts, default=None)

    def children(self) -> tuple[str, ...]:
        """For which children does the task wait?"""
        return tuple(sorted(self._children))

    def _add(self, wait: Wait) -> None:
        self._waits.append(wait)
        self._busy -= 1
        self._look()

    def _remove(self, wait: Wait) -> None:
        # By identity: two waits may well be equal.
        self._waits = [one for one in self._waits if one is not wait]
        self._busy += 1
        self._look()

    def _look(self) -> None:
        """Start the timer when the task becomes idle, and anew with whatever it does."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._when_idle is not None and self.idle:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._after_s, self._still_idle)

    def _still_idle(self) -> None:
        self._timer = None
        if self.idle and self._when_idle is not None:
            self._when_idle()
