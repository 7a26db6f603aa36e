"""Event log and tasks in PostgreSQL, for workers on many machines; needs the `postgres` extra."""

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import conninfo

from steelyard.errors import ConfigError, SchemaMismatchError, StoreBusyError, StoreError
from steelyard.store.backend import (
    OLDER_VERSIONS,
    SCHEMA_VERSION,
    SIGNAL,
    EventRow,
    TaskToAdd,
)
from steelyard.store.loads import POSTGRES_LOADS
from steelyard.store.postgres_sql import (
    ADD_KEYS,
    ADD_TASK,
    ADD_TASKS,
    SCHEMA,
    WRITE_MANY,
    WRITE_MANY_STEPS,
    WRITE_ONE,
    WRITE_ONE_STEP,
)
from steelyard.store.provider_spend import POSTGRES_SPEND

# Holds whoever makes the tables, and whoever takes tasks of agents with limits.
_MAKE_LOCK, _CLAIM_LOCK = 0x53594C44, 0x53594C45
_CONNECT_TIMEOUT_S = 5
# A machine that is gone without a word is noticed after some 10 s instead of hours.
_NOTICES_LOSS = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class PostgresBackend:
    """One connection to a database, opened anew when it breaks.

    Args:
        url: `postgresql://USER@HOST/DATABASE`, or any connection string of libpq.
        writer: Unique name of this writer; tells after a lost connection whether a group of
            events had been committed.
        password: The user's, where it is not in the URL; empty leaves it to libpq: the variable
            `PGPASSWORD`, or its password file.

    Raises:
        ConfigError: The URL cannot be read.
        SchemaMismatchError: The tables are those of another version.
        StoreError: The database cannot be reached.
    """

    skip_locked = " FOR UPDATE SKIP LOCKED"
    for_share = " FOR SHARE"
    now_sql = "extract(epoch FROM statement_timestamp())::float8"
    body_text_sql = "convert_from(body, 'UTF8')"

    def __init__(self, url: str, writer: str, password: str = "") -> None:
        self._writer = writer
        self._where = _place(url)
        # What the URL says of these counts.
        told = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value}
        own = {"password": password} if password else {}
        self._conninfo = conninfo.make_conninfo(**{**_NOTICES_LOSS, **told, **own})
        try:
            self._connection = self._connect()
        except StoreBusyError as error:
            raise StoreError(f"{error}; {_cure(str(error))}") from error
        self._version = self._make_tables()

    @property
    def version(self) -> int:
        """Version of the log, see `Backend`."""
        return self._version

    def upgrade(self) -> None:
        """Write the new version's number; the tables are there since the store was opened."""
        self.execute("UPDATE version SET version = ?", (SCHEMA_VERSION,))
        self._version = SCHEMA_VERSION

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
        return self._run(sql.replace("?", "%s"), parameters)

    def execute_unflushed(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement; one on an unlogged table alone flushes nothing."""
        self.execute(sql, parameters)

    def write(self, rows: list[EventRow], number: int) -> set[tuple[str, int]]:
        """Append rows whose leases still hold, in one statement."""
        changes = any(row.ended is not None or row.kind == SIGNAL for row in rows)
        held: str | list[str] = sorted({row.task_id or "" for row in rows if row.fence is not None})
        values: list[Any] = [
            [row.t_s for row in rows],
            [row.kind for row in rows],
            [row.task_id or "" for row in rows],
            [row.body for row in rows],
            [row.fence or 0 for row in rows],
            [row.ended or "" for row in rows],
        ]
        sql = WRITE_MANY if changes else WRITE_MANY_STEPS
        if len(rows) == 1:
            sql = WRITE_ONE if changes else WRITE_ONE_STEP
            held, values = "".join(held), [column[0] for column in values]
        lost = self._run(sql, (self._writer, number, held, *values))
        return {(str(task_id), int(fence)) for task_id, fence in lost}

    def add_tasks(self, tasks: list[TaskToAdd]) -> set[str]:
        """Put tasks into the store in one statement, except those whose id or key is there."""
        values: list[Any] = [[task[column] for task in tasks] for column in range(8)]
        values += [[task.row[column] for task in tasks] for column in (0, 1, 3)]
        sql = ADD_TASKS
        if len(tasks) == 1:
            sql, values = ADD_TASK, [column[0] for column in values]
        return {str(task_id) for (task_id,) in self._run(sql, values)}

    def insert_events(self, rows: list[EventRow]) -> None:
        """Append rows in one statement; the database numbers them."""
        columns = [[row[column] for row in rows] for column in range(4)]
        self.execute(
            "INSERT INTO events (t_s, kind, task_id, body)"
            " SELECT * FROM unnest(%b::float8[], %b::text[], %b::text[], %b::bytea[])",
            columns,
        )

    def lock_agents(self) -> None:
        """Let no other transaction take tasks until this one ends."""
        self.execute("SELECT pg_advisory_xact_lock(?)", (_CLAIM_LOCK,))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _run(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            # Statements are constants of this package; their values are parameters.
            cursor = self._connection.execute(sql.encode(), parameters)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            raise self._told(error) from error

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        try:
            return psycopg.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                options="-c search_path=steelyard -c synchronous_commit=on",
            )
        except psycopg.Error as error:
            raise self._told(error) from error

    def _make_tables(self) -> int:
        # Only where there are none: to make an index "if not exists" waits for all who write, and
        # they may wait for whoever makes the next one.
        if not all(self._has(table) for table in ("keys", "loads", "provider_holds")):
            self.execute("SELECT pg_advisory_lock(?)", (_MAKE_LOCK,))
            try:
                if not self._has("version"):
                    self._run(SCHEMA, ())
                elif not self._has("keys") and self._found_version() in OLDER_VERSIONS:
                    self._run(ADD_KEYS, ())
                if self._found_version() in OLDER_VERSIONS | {SCHEMA_VERSION}:
                    self._run(POSTGRES_LOADS, ())
                    self._run(POSTGRES_SPEND, ())
            finally:
                self.execute("SELECT pg_advisory_unlock(?)", (_MAKE_LOCK,))
        version = self._found_version()
        if version not in OLDER_VERSIONS | {SCHEMA_VERSION}:
            self._connection.close()
            raise SchemaMismatchError(
                f"{self._where} holds an event log of version {version}, not {SCHEMA_VERSION}; "
                "give another database"
            )
        return version

    def _has(self, table: str) -> bool:
        return self.execute("SELECT to_regclass(?)", (f"steelyard.{table}",))[0][0] is not None

    def _found_version(self) -> int:
        return int(self.execute("SELECT version FROM version")[0][0])

    def _told(self, error: psycopg.Error) -> StoreError:
        said = " ".join(str(error).split())
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            # It failed over, and this connection is to the one that takes no writes any more.
            self._connection.close()
            return StoreBusyError(f"event log {self._where} takes no writes now: {said}")
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StoreBusyError(f"event log {self._where} is away: {said}")
        return StoreError(f"event log {self._where} cannot be used: {said}")


def _place(url: str) -> str:
    """Host and database of a URL, never its password.

    What cannot be read is not shown either: in a URL that is cut in the wrong places, a piece of
    the password may stand anywhere.
    """
    authority = re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]
    try:
        known = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        known = {}
    if not known or url.count("@") > min(1, authority.count("@")):
        raise ConfigError(
            "the postgresql:// URL of the store cannot be read (it is not shown, for it may hold a "
            "password); write postgresql://USER@HOST:PORT/DATABASE, with %40 for @ and %2F for /, "
            "and the password in PGPASSWORD, store.password_env or libpq's password file"
        )
    return f"postgresql://{known.get('host') or ''}/{known.get('dbname') or ''}"


def _cure(said: str) -> str:
    """What helps when no first connection comes about?"""
    if "password" in said or "authentication" in said:
        return (
            "correct the user in the URL, and the password in PGPASSWORD, store.password_env or "
            "libpq's password file"
        )
    if "does not exist" in said:
        return "create it with createdb or createuser, or correct the URL"
    return "start it, or correct the URL"
