"""The event log in SQLite: append-only, group commit, durable before it is called so."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from steelyard.domain.events import Event
from steelyard.errors import SchemaMismatchError, StoreBusyError, StoreError
from steelyard.store.writer_lock import WriterLock

_SCHEMA_VERSION = 1
# "SYLD": tells our files from any other SQLite file.
_APPLICATION_ID = 0x53594C44
_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    t_s REAL NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
"""
_BUSY_TIMEOUT_S = 5.0

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class SqliteEventLog:
    """Appends events from one process; a thread of its own commits them in groups.

    `append` never waits for the disk. `durable` answers when everything appended so far is on
    disk (WAL, `synchronous=FULL`): whoever acknowledges work waits for it first.

    Args:
        path: The file; made if missing.

    Raises:
        SchemaMismatchError: The file is no event log, or one of another version.
        StoreBusyError: Another log object, here or in another process, writes to the file.
        StoreError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = WriterLock(path)
        try:
            self._connection = _open_to_write(path)
        except StoreError:
            self._lock.release()
            raise
        row = self._connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        self._next_seq = int(row[0]) + 1
        self._pending: list[tuple[int, float, str, str | None, bytes]] = []
        self._waiters: list[Future[None]] = []
        self._failure: StoreError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._writer = threading.Thread(target=self._write_all, name="event-log", daemon=True)
        self._writer.start()

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self._path

    def append(self, event: Event) -> int:
        """Take one more event.

        Args:
            event: What happened.

        Returns:
            Its number in the log.

        Raises:
            StoreError: An earlier commit failed, or the log is closed.
        """
        body = _encoder.encode(event)
        kind = str(event.__struct_config__.tag)
        with self._changed:
            self._check_open()
            seq = self._next_seq
            self._next_seq += 1
            self._pending.append((seq, event.t_s, kind, _task_id(event), body))
            self._changed.notify()
        return seq

    def durable(self) -> Future[None]:
        """When is everything appended so far on disk?

        Returns:
            A future that is done then; it fails with StoreError when the commit fails.
        """
        waiter: Future[None] = Future()
        # Whoever waits may give up (asyncio.wrap_future cancels what it wraps); the writer's
        # thread must not trip over that.
        waiter.set_running_or_notify_cancel()
        with self._changed:
            if self._failure is not None:
                waiter.set_exception(self._failure)
            elif self._closing:
                waiter.set_exception(StoreError(f"event log {self._path} is closed"))
            else:
                self._waiters.append(waiter)
                self._changed.notify()
        return waiter

    def close(self) -> None:
        """Commit what is left and close the file. Closing twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()
        self._connection.close()
        self._lock.release()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> "SqliteEventLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise StoreError(f"event log {self._path} is closed")

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._waiters or self._closing)
                rows, self._pending = self._pending, []
                waiters, self._waiters = self._waiters, []
                last = self._closing and not rows and not waiters
            if last:
                return
            try:
                if rows:
                    with self._connection:
                        self._connection.execute("BEGIN IMMEDIATE")
                        self._connection.executemany(
                            "INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows
                        )
            except sqlite3.Error as error:
                self._fail(error, waiters)
                return
            for waiter in waiters:
                waiter.set_result(None)

    def _fail(self, error: sqlite3.Error, waiters: list["Future[None]"]) -> None:
        """No later event may be committed when an earlier one is lost: the log stops here."""
        failure = StoreError(
            f"event log {self._path} cannot be written: {error}; free the disk and start again"
        )
        with self._changed:
            self._failure = failure
            waiters += self._waiters
            self._waiters = []
        for waiter in waiters:
            waiter.set_exception(failure)


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
    with closing(_connect(path, "rw")) as connection:
        if not _is_log(path, connection):
            raise SchemaMismatchError(f"{path} is empty; give the path of a recorded event log")
        try:
            for (body,) in connection.execute("SELECT body FROM events ORDER BY seq"):
                yield _decoder.decode(body)
        except msgspec.DecodeError as error:
            raise SchemaMismatchError(
                f"event log {path} holds an event this version cannot read: {error}"
            ) from error
        except sqlite3.Error as error:
            raise _told(path, error) from error


def _task_id(event: Event) -> str | None:
    step = getattr(event, "step", None)
    found = getattr(event, "task_id", None) if step is None else step.task_id
    return None if found is None else str(found)


def _connect(path: Path, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise _told(path, error) from error


def _is_log(path: Path, connection: sqlite3.Connection) -> bool:
    """Is the file a log that this version reads? False when it is empty; nothing is written."""
    try:
        application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    except sqlite3.Error as error:
        raise _told(path, error) from error
    if (application_id, version, tables) == (0, 0, 0):
        return False
    if (application_id, version) != (_APPLICATION_ID, _SCHEMA_VERSION):
        raise SchemaMismatchError(
            f"{path} is not a Steelyard event log of version {_SCHEMA_VERSION} "
            f"(application id {application_id:#x}, version {version}); give another path"
        )
    return True


def _open_to_write(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "rwc")
    try:
        # Another program's file is told apart before the first change is made to it.
        is_log = _is_log(path, connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if not is_log:
            connection.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA application_id={_APPLICATION_ID};"
                f"PRAGMA user_version={_SCHEMA_VERSION};COMMIT;"
            )
    except sqlite3.Error as error:
        connection.close()
        raise _told(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _told(path: Path, error: sqlite3.Error) -> StoreError:
    if isinstance(error, sqlite3.OperationalError):
        if "locked" in str(error):
            return StoreBusyError(
                f"event log {path} is held by another process; stop it or give another path"
            )
        return StoreError(
            f"event log {path} cannot be opened: {error}; check the file and its folder"
        )
    return SchemaMismatchError(f"{path} is no SQLite file ({error}); give another path")
