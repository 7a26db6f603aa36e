"""Ids of tasks that nobody has named: unique, in order of making, and not to be guessed."""

import os
from itertools import count

_BATCH = 512
_CHANCE_BYTES = 6


class TaskIds:
    """Makes ids of 32 hex digits.

    10 digits tell this process from others, 10 count, 12 are chance drawn anew for every id: who
    knows one id knows no other. Ids that are made one after the other sort that way, so that the
    log's index grows at one end: with ids of chance alone every commit touches as many pages of
    it as it has tasks. Chance is drawn from the kernel in batches, since each draw is a system
    call.
    """

    def __init__(self) -> None:
        self._process = os.urandom(5).hex()
        self._numbers = count()
        self._chance = ""
        self._used = 0

    def new(self) -> str:
        """The next id."""
        digits = 2 * _CHANCE_BYTES
        if self._used == len(self._chance):
            self._chance, self._used = os.urandom(_BATCH * _CHANCE_BYTES).hex(), 0
        chance = self._chance[self._used : self._used + digits]
        self._used += digits
        return f"{self._process}{next(self._numbers):010x}{chance}"
