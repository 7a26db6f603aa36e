"""Which store does an address mean?"""

from pathlib import Path

from steelyard.errors import ConfigError, MissingExtraError
from steelyard.store.event_store import EventStore
from steelyard.store.sqlite_log import SqliteEventLog

_POSTGRES = ("postgresql://", "postgres://")


def open_store(where: str | Path, password: str = "") -> EventStore:
    """Open an event log with its tasks.

    Args:
        where: A `postgresql://` URL, or the path of a SQLite file.
        password: Of the database, where it is not in the URL; empty leaves it to libpq.

    Returns:
        The store; the caller closes it.

    Raises:
        MissingExtraError: PostgreSQL is wanted and its driver is not installed.
        ConfigError: The URL is none that can be read.
        StoreError: It cannot be opened.
    """
    if not is_postgres(where):
        _refuse_other_urls(str(where))
        return SqliteEventLog(Path(where))
    try:
        from steelyard.store.postgres_log import PostgresEventLog  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "a store in PostgreSQL needs its driver; install it with "
            "`pip install 'steelyard[postgres]'`"
        ) from error
    return PostgresEventLog(str(where), password)


def is_postgres(where: str | Path) -> bool:
    """Does an address mean a PostgreSQL database?"""
    return str(where).startswith(_POSTGRES)


def _refuse_other_urls(where: str) -> None:
    """A slip of the pen must not make a file of that name; it may be a URL with a password."""
    scheme, found, _ = where.partition("://")
    if found:
        raise ConfigError(
            f"a store cannot be a {scheme}:// URL; write postgresql://USER@HOST/DATABASE, or the "
            "path of a SQLite file"
        )
