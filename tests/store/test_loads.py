"""Loads of processes in every store: told, heard, and forgotten."""

from pathlib import Path

import pytest
from tests.store.conftest import Open
from tests.store.postgres_server import PostgresServer

from steelyard.store.event_store import EventStore
from steelyard.store.loads import SQLITE_LOADS
from steelyard.store.open_store import open_store
from steelyard.store.sqlite_backend import SqliteBackend, connect
from steelyard.store.sqlite_log import SqliteEventLog

Told = list[tuple[str, bytes]]


def _tell(store: EventStore, owner: str, body: bytes, lease_s: float = 60.0) -> Told:
    def decide(others: Told) -> tuple[bytes, Told]:
        return body, others

    return store.loads.exchange(owner, decide, lease_s).result()


def test_processes_hear_each_other_until_they_leave(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        assert _tell(one, "a", b"1") == []
        assert _tell(two, "b", b"2") == [("a", b"1")]
        assert _tell(one, "a", b"3") == [("b", b"2")]
        one.loads.leave("a").result()
        assert _tell(two, "b", b"2") == []


def test_a_process_that_died_is_forgotten_by_the_databases_clock(tmp_path: Path) -> None:
    now_s = [1000.0]
    with EventStore(SqliteBackend(tmp_path / "log.db", lambda: now_s[0])) as store:
        _tell(store, "dead", b"1", lease_s=1.0)
        now_s[0] += 0.9
        assert _tell(store, "b", b"2") == [("dead", b"1")]
        now_s[0] += 0.2
        assert _tell(store, "b", b"2") == []


def test_a_store_from_before_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    SqliteEventLog(path).close()
    old = connect(path, "rw")
    old.execute("DROP TABLE loads")
    old.close()
    assert "loads" in SQLITE_LOADS
    with SqliteEventLog(path) as store:
        assert _tell(store, "a", b"1") == []


def test_a_database_from_before_gets_the_table(postgres: PostgresServer) -> None:
    psycopg = pytest.importorskip("psycopg")
    url = postgres.new_database()
    open_store(url).close()
    with psycopg.connect(url, autocommit=True) as old:
        old.execute("DROP TABLE steelyard.loads")
    with open_store(url) as store:
        assert _tell(store, "a", b"1") == []
