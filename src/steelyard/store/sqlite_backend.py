"""Event log and tasks in one SQLite file, for many processes of one machine."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from steelyard.errors import SchemaMismatchError, StoreBusyError, StoreError
from steelyard.store.backend import (
    OLDER_VERSIONS,
    SCHEMA_VERSION,
    SIGNAL,
    EventRow,
    TaskToAdd,
)
from steelyard.store.keys_tables import SQLITE_KEYS
from steelyard.store.loads import SQLITE_LOADS
from steelyard.store.provider_spend import SQLITE_SPEND
from steelyard.store.waiting_sql import COUNT_SIGNAL

R = TypeVar("R")

# Later versions only add tables: older logs are read as they are, and get them when written to.
_READABLE = OLDER_VERSIONS | {SCHEMA_VERSION}
# "SYLD": tells our files from any other SQLite file.
_APPLICATION_ID = 0x53594C44
_SCHEMA = (
    """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    t_s REAL NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_s REAL NOT NULL,
    parent TEXT NOT NULL,
    caller_key TEXT UNIQUE,
    worker TEXT NOT NULL,
    fence INTEGER NOT NULL,
    lease_until_s REAL NOT NULL,
    started_s REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    signals INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tasks_to_run ON tasks (priority DESC, number) WHERE state = 'open';
CREATE INDEX tasks_held ON tasks (worker) WHERE worker <> '';
CREATE INDEX tasks_started ON tasks (agent, started_s) WHERE started_s > 0;
CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent <> '';
CREATE INDEX tasks_waiting ON tasks (lease_until_s) WHERE state = 'waiting';
CREATE TABLE places (
    pool TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    until_s REAL NOT NULL,
    started_s REAL NOT NULL,
    PRIMARY KEY (pool, name)
) STRICT;
CREATE INDEX places_by_owner ON places (owner);
"""
    + SQLITE_KEYS
    + f";{SQLITE_LOADS};{SQLITE_SPEND}"
)
_BUSY_TIMEOUT_S = 5.0
_SWITCH_PAUSE_S = 0.01
_ADD = (
    "INSERT INTO tasks (task_id, agent, state, priority, submitted_s, parent, caller_key, worker,"
    " fence, lease_until_s, started_s) VALUES (?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_FENCES = "SELECT task_id, fence FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))"
_INSERT = "INSERT INTO events (t_s, kind, task_id, body) VALUES "
# Rows per statement. Each statement lets go of the interpreter's lock once: inserted one by one,
# rows would queue for it behind the event loop, each anew.
_ROWS_AT_ONCE = (256, 64, 16, 4, 1)
_INSERTS = {rows: _INSERT + ", ".join(["(?, ?, ?, ?)"] * rows) for rows in _ROWS_AT_ONCE}


class SqliteBackend:
    """One connection to the file.

    Args:
        path: The file; made if missing.
        clock_s: The database's clock. Leases of all processes are measured by it; a jump of it
            ends leases early or late, and fences keep the log right either way.

    Raises:
        SchemaMismatchError: The file is no event log, or one of another version.
        StoreError: The file cannot be opened.
    """

    skip_locked = ""
    # The write lock keeps all rows as they are.
    for_share = ""
    now_sql = "clock_s()"
    body_text_sql = "CAST(body AS TEXT)"

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock_s = clock_s
        self._connection = _open_to_write(path)
        self._connection.create_function("clock_s", 0, clock_s)
        self._version = _version(self._connection)

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self._path)

    @property
    def version(self) -> int:
        """Version of the log, see `Backend`."""
        return self._version

    def upgrade(self) -> None:
        """Write the new version's number; the tables are there since the file was opened."""
        self._do(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._version = SCHEMA_VERSION

    def begin(self) -> None:
        """Start a transaction; it has the write lock at once."""
        self._do("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it; the file is synchronised then."""
        self._do("COMMIT")

    def rollback(self) -> None:
        """End it without a trace."""
        if self._connection.in_transaction:
            self._do("ROLLBACK")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        return self._do(sql, parameters).fetchall()

    def execute_unflushed(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement; the next commit of events brings it to the disk with them."""
        self._do("PRAGMA synchronous=NORMAL")
        try:
            self._do(sql, parameters)
        finally:
            self._do("PRAGMA synchronous=FULL")

    def write(self, rows: list[EventRow], number: int) -> set[tuple[str, int]]:
        """Append rows whose leases still hold; a group that was committed is known as such here."""
        if not self._connection.in_transaction:
            return self._apart(lambda: self.write(rows, number))
        held = {row.task_id or "" for row in rows if row.fence is not None}
        fences = self._fences(held)
        lost = {
            (row.task_id or "", row.fence)
            for row in rows
            if row.fence is not None and fences.get(row.task_id or "") != row.fence
        }
        kept = [row for row in rows if (row.task_id or "", row.fence) not in lost]
        self.insert_events(kept)
        ends = [(row.ended, row.task_id) for row in kept if row.ended is not None]
        self._do_many(
            "UPDATE tasks SET state = ?, worker = '', lease_until_s = 0 WHERE task_id = ?", ends
        )
        signals = [(row.task_id,) for row in kept if row.kind == SIGNAL]
        self._do_many(COUNT_SIGNAL, signals)
        return lost

    def add_tasks(self, tasks: list[TaskToAdd]) -> set[str]:
        """Put tasks into the store, except those whose id or key is there."""
        if not self._connection.in_transaction:
            return self._apart(lambda: self.add_tasks(tasks))
        now_s = self._clock_s()
        added: set[str] = set()
        for task in tasks:
            until_s = now_s + task.lease_s if task.worker else 0.0
            values = (
                *(task.task_id, task.agent, task.priority, task.submitted_s, task.parent),
                *(task.key or None, task.worker, 1 if task.worker else 0, until_s),
                now_s if task.worker else 0.0,
            )
            if self._do(_ADD, values).rowcount:
                added.add(task.task_id)
        self.insert_events([task.row for task in tasks if task.task_id in added])
        return added

    def insert_events(self, rows: list[EventRow]) -> None:
        """Append rows; the file numbers them."""
        try:
            start = 0
            while start < len(rows):
                size = next(one for one in _ROWS_AT_ONCE if one <= len(rows) - start)
                values = [value for row in rows[start : start + size] for value in row[:4]]
                self._connection.execute(_INSERTS[size], values)
                start += size
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error

    def lock_agents(self) -> None:
        """The write lock is one already."""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _fences(self, task_ids: set[str]) -> dict[str, int]:
        """Which leases do tasks have? The write lock keeps them so. One statement, as `insert`."""
        if not task_ids:
            return {}
        told = msgspec.json.encode(sorted(task_ids)).decode()
        return {str(task_id): int(fence) for task_id, fence in self.execute(_FENCES, (told,))}

    def _apart(self, work: Callable[[], set[R]]) -> set[R]:
        self.begin()
        done = work()
        self.commit()
        return done

    def _do_many(self, sql: str, parameters: list[tuple[Any, ...]]) -> None:
        if not parameters:
            return
        try:
            self._connection.executemany(sql, parameters)
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error

    def _do(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            raise store_error(self._path, error) from error


def connect(path: Path, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
    """Open a file in autocommit mode; nothing is written to it.

    Args:
        path: The file.
        mode: `rwc` makes it if missing.

    Raises:
        StoreError: It cannot be opened.
    """
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def is_log(path: Path, connection: sqlite3.Connection) -> bool:
    """Is the file a log that this version reads? False when it is empty; nothing is written.

    Raises:
        SchemaMismatchError: It is something else.
    """
    # One snapshot: another process may be making the tables between two of these questions.
    is_apart = not connection.in_transaction
    try:
        if is_apart:
            connection.execute("BEGIN")
        application_id = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if is_apart:
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise store_error(path, error) from error
    if (application_id, version, tables) == (0, 0, 0):
        return False
    if application_id != _APPLICATION_ID or version not in _READABLE:
        raise SchemaMismatchError(
            f"{path} is not a Steelyard event log of version {SCHEMA_VERSION} "
            f"(application id {application_id:#x}, version {version}); give another path"
        )
    return True


def store_error(path: Path, error: sqlite3.Error) -> StoreError:
    """What does an error of SQLite mean for the caller?"""
    told = str(error)
    if "locked" in told or "busy" in told:
        return StoreBusyError(
            f"event log {path} is held by another process; stop it or give another path"
        )
    if isinstance(error, sqlite3.OperationalError):
        what = "opened" if "unable to open" in told else "written"
        return StoreError(
            f"event log {path} cannot be {what}: {told}; check the disk, the file and its folder, "
            "and start again"
        )
    return SchemaMismatchError(f"{path} is no SQLite file ({told}); give another path")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself while another one switches."""
    gives_up_s = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > gives_up_s:
                raise
            time.sleep(_SWITCH_PAUSE_S)
        else:
            return


def _open_to_write(path: Path) -> sqlite3.Connection:
    connection = connect(path, "rwc")
    try:
        # Another program's file is told apart before the first change is made to it.
        known = is_log(path, connection)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        if not known:
            # Two processes may open a new file at once: the second finds the first one's tables.
            connection.execute("BEGIN IMMEDIATE")
            if not is_log(path, connection):
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                _make(connection, _SCHEMA)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        _add_tables(connection)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _add_tables(connection: sqlite3.Connection) -> None:
    """Give an older log the tables that it lacks. Its version stays, so older processes read it."""
    sql = "SELECT 1 FROM sqlite_master WHERE name = 'loads'"
    if connection.execute(sql).fetchone() is None:
        connection.execute(SQLITE_LOADS)
    sql = "SELECT 1 FROM sqlite_master WHERE name = 'provider_holds'"
    if connection.execute(sql).fetchone() is None:
        _make(connection, SQLITE_SPEND)
    if _has_keys(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have done it meanwhile.
    if not _has_keys(connection):
        _make(connection, SQLITE_KEYS)
    connection.execute("COMMIT")


def _has_keys(connection: sqlite3.Connection) -> bool:
    found = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'keys'"
    return bool(connection.execute(found).fetchone()[0])


def _make(connection: sqlite3.Connection, tables: str) -> None:
    for statement in tables.split(";"):
        connection.execute(statement)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
