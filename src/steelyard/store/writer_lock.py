"""One writer per event log: two would number their events alike."""

import fcntl
import os
from pathlib import Path

from steelyard.errors import StoreBusyError, StoreError


class WriterLock:
    """Holds an event log for one writer until it is released or its process ends.

    The lock is a file of its own, `LOG-lock`, which stays behind: closing any handle of the log
    itself would drop SQLite's own locks (sqlite.org/howtocorrupt.html, section 2.2), and removing
    the lock file would let two processes lock two files of one name. Readers take no lock.

    Args:
        log: The event log.

    Raises:
        StoreBusyError: Another writer holds the log.
        StoreError: The lock file cannot be made.
    """

    def __init__(self, log: Path) -> None:
        path = log.with_name(log.name + "-lock")
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"event log {log} cannot be opened: {error.strerror}; "
                "give a path in a folder that exists and can be written"
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise StoreBusyError(
                f"event log {log} is being written by another process; stop it or give another path"
            ) from error

    def release(self) -> None:
        """Let another writer in; releasing twice is allowed."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
