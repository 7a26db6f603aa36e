"""The event log in SQLite: append-only, group commit, durable before it is called so."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from steelyard.domain.events import Event
from steelyard.errors import SchemaMismatchError, StoreError
from steelyard.store.event_store import EventStore, iter_events
from steelyard.store.sqlite_backend import SqliteBackend, connect, is_log, store_error


class SqliteEventLog(EventStore):
    """Event log and tasks in one file (WAL, `synchronous=FULL`), for any number of processes.

    Args:
        path: The file; made if missing.
        clock_s: See `SqliteBackend`.

    Raises:
        SchemaMismatchError: The file is no event log, or one of another version.
        StoreError: The file cannot be opened.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        super().__init__(SqliteBackend(path, clock_s))
        self._path = path

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._path


def read_events(path: Path) -> Iterator[Event]:
    """What happened, in order?

    Args:
        path: An event log.

    Yields:
        Every event.

    Raises:
        SchemaMismatchError: The file is no event log, or one of another version.
        StoreError: The file is missing or unreadable.
    """
    if not path.is_file():
        raise StoreError(f"event log {path} does not exist; give the path of a recorded log")
    with closing(connect(path, "rw")) as connection:
        if not is_log(path, connection):
            raise SchemaMismatchError(f"{path} is empty; give the path of a recorded event log")
        try:
            rows = connection.execute("SELECT body FROM events ORDER BY seq")
            yield from iter_events(body for (body,) in rows)
        except sqlite3.Error as error:
            raise store_error(path, error) from error
