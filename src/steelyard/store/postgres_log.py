"""The event log in PostgreSQL; needs the `postgres` extra."""

import uuid

from steelyard.store.event_store import EventStore
from steelyard.store.postgres_backend import PostgresBackend


class PostgresEventLog(EventStore):
    """Event log and tasks in one database, for workers on many machines.

    Events of different processes may become visible out of the order of their numbers; those of
    one task, which one worker writes at a time, do not.

    Args:
        url: See `PostgresBackend`.
        password: See `PostgresBackend`.

    Raises:
        SchemaMismatchError: The tables are those of another version.
        StoreError: The database cannot be reached.
    """

    def __init__(self, url: str, password: str = "") -> None:
        super().__init__(PostgresBackend(url, f"writer-{uuid.uuid4().hex}", password))
