"""Every store that there is, for the conformance suite."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from tests.store.postgres_server import MISSING, PostgresServer, postgres_server

from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store

# Opens one more store object on the same database.
Open = Callable[[], AbstractContextManager[EventStore]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if MISSING:
        pytest.skip(f"PostgreSQL is not installed: {MISSING}")
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "log.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def open_one(where: str) -> Open:
    @contextmanager
    def opened() -> Generator[EventStore, None, None]:
        with closing(open_store(where)) as store:
            yield store

    return opened
