"""Reading a store beside its writers: a connection and a thread of its own.

Long questions asked here hold up neither the event loop nor the thread that commits the log.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from steelyard.domain.events import Event, PoolAdded
from steelyard.errors import StoreBusyError
from steelyard.store import task_search, task_sql
from steelyard.store.backend import Backend
from steelyard.store.event_store import decode_events
from steelyard.store.open_store import is_postgres
from steelyard.store.sqlite_backend import SqliteBackend
from steelyard.store.task_search import ListedTask, TaskPage, TaskQuery

A = TypeVar("A")
_MOST_AGENTS = 200


class StoreAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is.

    Attributes:
        where: A `postgresql://` URL, or the path of a SQLite file.
        password: Of the database, where it is not in the URL; empty leaves it to libpq.
    """

    where: str
    password: str = ""

    def __repr__(self) -> str:
        """Everything but the password, since this ends up in logs and tracebacks."""
        return f"StoreAddress(where={self.where!r})"


class StoreReader:
    """Answers questions about a store that exists; it writes nothing.

    Args:
        address: The store. It is opened with the first question.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self._backend: Backend | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="steelyard-reader")

    def last_number(self) -> "Future[int]":
        """Number of the log's newest event; 0 without any."""
        return self._ask(task_search.last_number)

    def search(self, query: TaskQuery) -> "Future[TaskPage]":
        """Which tasks are asked for, the newest first?"""
        return self._ask(lambda backend: task_search.search(backend, query))

    def task(self, task_id: str) -> "Future[tuple[ListedTask | None, tuple[Event, ...]]]":
        """A task as it would be listed, None when there is none, and its events in order."""

        def read(backend: Backend) -> tuple[ListedTask | None, tuple[Event, ...]]:
            found = task_search.listed(backend, task_id)
            return found, decode_events(task_sql.bodies(backend, task_id))

        return self._ask(read)

    def agents(self) -> "Future[list[str]]":
        """Agents of durable tasks, by name; the first two hundred."""
        return self._ask(lambda backend: task_search.agents(backend, _MOST_AGENTS))

    def events(self, after: int, limit: int) -> "Future[list[tuple[int, bytes]]]":
        """Which events come after a number of the log, as (number, JSON)?"""
        return self._ask(lambda backend: task_sql.bodies_after(backend, after, limit))

    def pools(self, upto: int) -> "Future[tuple[Event, ...]]":
        """How did pools join up to a number of the log? All of it is looked through."""
        kind = str(PoolAdded.__struct_config__.tag)
        return self._ask(
            lambda backend: decode_events(task_sql.bodies_of_kind(backend, kind, upto))
        )

    def close(self) -> None:
        """Answer what was asked, and close the connection."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _ask(self, question: Callable[[Backend], A]) -> "Future[A]":
        return self._thread.submit(self._answer, question)

    def _answer(self, question: Callable[[Backend], A]) -> A:
        if self._backend is None:
            self._backend = _open(self._address)
        try:
            return question(self._backend)
        except StoreBusyError:
            # The connection may be gone; the next question then has a new one.
            self._close()
            raise

    def _close(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def _open(address: StoreAddress) -> Backend:
    if not is_postgres(address.where):
        return SqliteBackend(Path(address.where))
    from steelyard.store.postgres_backend import PostgresBackend  # noqa: PLC0415 - an extra

    return PostgresBackend(address.where, "reader", address.password)
