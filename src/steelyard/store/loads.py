"""How busy does each process keep the replicas that it shares with others? One row per process.

The rows are of the moment: a process that ends takes its own away, one that dies is forgotten when
its lease by the database's clock is over. So no write here waits for the disk, and PostgreSQL keeps
them in an unlogged table, of which nothing is left after a crash. Earlier stores get the table when
they are opened to be written, and earlier versions do not look at it.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from steelyard.store.backend import Backend
from steelyard.store.group_writer import GroupWriter

R = TypeVar("R")
Decide = Callable[[list[tuple[str, bytes]]], tuple[bytes, R]]

SQLITE_LOADS = (
    "CREATE TABLE IF NOT EXISTS loads"
    " (owner TEXT PRIMARY KEY, until_s REAL NOT NULL, body BLOB NOT NULL) STRICT"
)
POSTGRES_LOADS = (
    "CREATE UNLOGGED TABLE IF NOT EXISTS loads"
    " (owner TEXT PRIMARY KEY, until_s DOUBLE PRECISION NOT NULL, body BYTEA NOT NULL)"
)


class LoadStore:
    """What a store knows of the loads of its processes.

    Args:
        writer: The store's.
    """

    def __init__(self, writer: GroupWriter) -> None:
        self._writer = writer

    def exchange(self, owner: str, decide: Decide[R], lease_s: float) -> "Future[R]":
        """Hear the other processes, and tell what this one makes of it.

        Args:
            owner: Name of the process, unique in the store.
            decide: Takes name and load of every other process, by name in order; returns what this
                one tells and what the caller gets. It runs in the store's thread, maybe more than
                once.
            lease_s: Seconds after which this process is forgotten.
        """

        def told(backend: Backend) -> R:
            body, found = decide(others(backend, owner))
            put(backend, owner, body, lease_s)
            return found

        # Outside of the transactions of events: nobody who waits for these waits for it.
        return self._writer.read(told)

    def leave(self, owner: str) -> "Future[None]":
        """This process ends: forget its load, and those of processes that died long ago."""
        return self._writer.read(lambda backend: leave(backend, owner))


def put(backend: Backend, owner: str, body: bytes, lease_s: float) -> None:
    """Write one process's load."""
    backend.execute_unflushed(
        "INSERT INTO loads (owner, until_s, body)"  # noqa: S608 - a constant
        f" VALUES (?, {backend.now_sql} + ?, ?)"
        " ON CONFLICT (owner) DO UPDATE SET until_s = excluded.until_s, body = excluded.body",
        (owner, lease_s, body),
    )


def others(backend: Backend, owner: str) -> list[tuple[str, bytes]]:
    """Loads of all other processes whose leases hold."""
    rows = backend.execute(
        f"SELECT owner, body FROM loads WHERE owner <> ? AND until_s > {backend.now_sql}"  # noqa: S608 - a constant
        " ORDER BY owner",
        (owner,),
    )
    return [(str(name), bytes(body)) for name, body in rows]


def leave(backend: Backend, owner: str) -> None:
    """Take one process's load away, and those that nobody keeps up."""
    backend.execute_unflushed(
        f"DELETE FROM loads WHERE owner = ? OR until_s < {backend.now_sql}",  # noqa: S608 - a constant
        (owner,),
    )
