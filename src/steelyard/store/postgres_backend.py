"""Event log and tasks in PostgreSQL, for workers on many machines; needs the `postgres` extra."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import conninfo

from steelyard.errors import SchemaMismatchError, StoreBusyError, StoreError
from steelyard.store.backend import Backend, EventRow

SCHEMA_VERSION = 3
# Holds whoever makes the tables, and whoever takes tasks of agents with limits.
_MAKE_LOCK, _CLAIM_LOCK = 0x53594C44, 0x53594C45
_CONNECT_TIMEOUT_S = 5
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS steelyard;
SET search_path = steelyard;
CREATE TABLE IF NOT EXISTS version (version INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS writers (writer TEXT PRIMARY KEY, last_group BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    t_s DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT,
    body BYTEA NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_task ON events (task_id, seq) WHERE task_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS tasks (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    submitted_s DOUBLE PRECISION NOT NULL,
    parent TEXT NOT NULL,
    caller_key TEXT UNIQUE,
    worker TEXT NOT NULL,
    fence BIGINT NOT NULL,
    lease_until_s DOUBLE PRECISION NOT NULL,
    started_s DOUBLE PRECISION NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    signals INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS tasks_to_run ON tasks (priority DESC, number) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS tasks_held ON tasks (worker) WHERE worker <> '';
CREATE INDEX IF NOT EXISTS tasks_started ON tasks (agent, started_s) WHERE started_s > 0;
CREATE INDEX IF NOT EXISTS tasks_by_parent ON tasks (parent) WHERE parent <> '';
CREATE INDEX IF NOT EXISTS tasks_waiting ON tasks (lease_until_s) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS places (
    pool TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    until_s DOUBLE PRECISION NOT NULL,
    started_s DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (pool, name)
);
CREATE INDEX IF NOT EXISTS places_by_owner ON places (owner);
"""


class PostgresBackend:
    """One connection to a database, opened anew when it breaks.

    Args:
        url: `postgresql://USER@HOST/DATABASE`, or any connection string of libpq.
        writer: Unique name of this writer; tells after a lost connection whether a group of
            events had been committed.

    Raises:
        SchemaMismatchError: The tables are those of another version.
        StoreError: The database cannot be reached.
    """

    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, url: str, writer: str) -> None:
        self._url = url
        self._writer = writer
        known = conninfo.conninfo_to_dict(url)
        # Never the password.
        self._where = f"postgresql://{known.get('host') or ''}/{known.get('dbname') or ''}"
        try:
            self._connection = self._connect()
        except StoreBusyError as error:
            raise StoreError(f"{error}; start it, or correct the URL") from error
        self._make_tables()

    @property
    def where(self) -> str:
        """Host and name of the database."""
        return self._where

    def begin(self) -> None:
        """Start a transaction."""
        self.execute("BEGIN")

    def commit(self) -> None:
        """End it; its write-ahead log is on disk then."""
        self.execute("COMMIT")

    def rollback(self) -> None:
        """End it without a trace; connects anew where the connection is gone."""
        if self._connection.broken or self._connection.closed:
            self._connection.close()
            self._connection = self._connect()
        else:
            self.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        try:
            # Statements are constants of this package; their values are parameters.
            cursor = self._connection.execute(sql.replace("?", "%s").encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            raise self._told(error) from error

    def fences(self, task_ids: list[str]) -> dict[str, int]:
        """Which leases do tasks have? A claim waits until this transaction has ended."""
        sql = "SELECT task_id, fence FROM tasks WHERE task_id = ANY(?) ORDER BY task_id FOR SHARE"
        return {task_id: fence for task_id, fence in self.execute(sql, (task_ids,))}  # noqa: C416 - rows are tuples of any length

    def insert_events(self, rows: list[EventRow]) -> None:
        """Append rows in one statement; the database numbers them."""
        columns = [[row[column] for row in rows] for column in range(4)]
        self.execute(
            "INSERT INTO events (t_s, kind, task_id, body)"
            " SELECT * FROM unnest(%b::float8[], %b::text[], %b::text[], %b::bytea[])",
            columns,
        )

    def end_tasks(self, state: str, task_ids: list[str]) -> None:
        """Tasks have ended."""
        self.execute(
            "UPDATE tasks SET state = ?, worker = '', lease_until_s = 0 WHERE task_id = ANY(?)",
            (state, task_ids),
        )

    def lock_agents(self) -> None:
        """Let no other transaction take tasks until this one ends."""
        self.execute("SELECT pg_advisory_xact_lock(?)", (_CLAIM_LOCK,))

    def now_s(self) -> float:
        """What time is it by the database's clock, in seconds since 1970?"""
        return float(self.execute("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def committed(self, group: int) -> bool:
        """Was this group of this writer committed before? If not, it is with this transaction."""
        rows = self.execute(
            "INSERT INTO writers AS known VALUES (?, ?) ON CONFLICT (writer) DO UPDATE"
            " SET last_group = excluded.last_group WHERE known.last_group < excluded.last_group"
            " RETURNING 1",
            (self._writer, group),
        )
        return not rows

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        try:
            return psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                options="-c search_path=steelyard -c synchronous_commit=on",
            )
        except psycopg.Error as error:
            raise self._told(error) from error

    def _make_tables(self) -> None:
        self.execute("SELECT pg_advisory_lock(?)", (_MAKE_LOCK,))
        try:
            self.execute(_SCHEMA)
            self.execute(
                "INSERT INTO version SELECT ?::int WHERE NOT EXISTS (SELECT FROM version)",
                (SCHEMA_VERSION,),
            )
            version = self.execute("SELECT version FROM version")[0][0]
        finally:
            self.execute("SELECT pg_advisory_unlock(?)", (_MAKE_LOCK,))
        if version != SCHEMA_VERSION:
            self._connection.close()
            raise SchemaMismatchError(
                f"{self._where} holds an event log of version {version}, not {SCHEMA_VERSION}; "
                "give another database"
            )

    def _told(self, error: psycopg.Error) -> StoreError:
        said = " ".join(str(error).split())
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StoreBusyError(f"event log {self._where} is away: {said}")
        return StoreError(f"event log {self._where} cannot be used: {said}")


def guard(backend: Backend, group: int) -> bool:
    """Is the group in the database already? For `GroupWriter`."""
    return isinstance(backend, PostgresBackend) and backend.committed(group)
