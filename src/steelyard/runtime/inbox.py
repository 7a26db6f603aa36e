"""Signals on their way into a running task."""

import asyncio

from steelyard.domain.events import JsonValue
from steelyard.runtime.journal import Journal
from steelyard.runtime.waits import Wait


class Inbox:
    """Values sent to one task, by name, in the order of the log.

    Args:
        journal: What is recorded of the task: signals sent, and `signal` steps that took some.
    """

    def __init__(self, journal: Journal) -> None:
        self._values: dict[str, list[JsonValue]] = {}
        self._taken: dict[str, int] = {}
        self._lines: dict[str, list[object]] = {}
        self._changed = asyncio.Event()
        for step in journal.steps.values():
            # One that ran out of patience has taken none.
            if step.kind == "signal" and step.done and not step.error_code:
                self._taken[step.name] = self._taken.get(step.name, 0) + 1
        self.update(journal)

    @property
    def count(self) -> int:
        """How many signals were sent so far?"""
        return sum(len(values) for values in self._values.values())

    def update(self, journal: Journal) -> None:
        """Learn of signals that were sent meanwhile."""
        self._values = {name: list(values) for name, values in journal.signals.items()}
        self._changed.set()

    async def take(self, name: str, wait: Wait) -> JsonValue:
        """Wait for the next value of a name; `wait` is told which signals it was not.

        Who asked first gets the first value. Who gives up leaves the line, and nobody else waits
        longer for it.
        """
        line = self._lines.setdefault(name, [])
        place = object()
        line.append(place)
        try:
            while True:
                number = self._taken.get(name, 0)
                values = self._values.get(name, [])
                if line[0] is place and number < len(values):
                    self._taken[name] = number + 1
                    return values[number]
                wait.signals = self.count
                self._changed.clear()
                await self._changed.wait()
        finally:
            line.remove(place)
            self._changed.set()
