"""Which store does an address mean?"""

from pathlib import Path

from steelyard.errors import MissingExtraError
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_log import SqliteEventLog

_POSTGRES = ("postgresql://", "postgres://")


def open_store(where: str | Path) -> EventStore:
    """Open an event log with its tasks.

    Args:
        where: A `postgresql://` URL, or the path of a SQLite file.

    Returns:
        The store; the caller closes it.

    Raises:
        MissingExtraError: PostgreSQL is wanted and its driver is not installed.
        StoreError: It cannot be opened.
    """
    if not str(where).startswith(_POSTGRES):
        return SqliteEventLog(Path(where))
    try:
        from steelyard.store.postgres_log import PostgresEventLog  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "a store in PostgreSQL needs its driver; install it with "
            "`pip install 'steelyard[postgres]'`"
        ) from error
    return PostgresEventLog(str(where))
