"""Keys and the money that processes hold of their budgets, in every store."""

import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.store.conftest import Open
from tests.store.postgres_server import PostgresServer

from steelyard.domain.events import TaskSubmitted
from steelyard.domain.key import ApiKey, KeyTerms
from steelyard.errors import SchemaMismatchError
from steelyard.store.event_store import EventStore, read_store
from steelyard.store.keys_sql import Grant, Wish
from steelyard.store.open_store import open_store
from steelyard.store.sqlite_backend import SqliteBackend
from steelyard.store.sqlite_log import read_events
from steelyard.store.tasks import Submission


def _key(key_id: str = "k", *, budget_usd: float | None = None, revoked_s: float = 0.0) -> ApiKey:
    terms = KeyTerms(name="n", budget_usd=budget_usd, pools=("a", "b"))
    return ApiKey(
        key_id=key_id, digest=b"\0\xff" * 16, terms=terms, created_s=1.5, revoked_s=revoked_s
    )


def _put(store: EventStore, key: ApiKey) -> None:
    store.keys.put(key).result()


def _ask(store: EventStore, owner: str, wish: Wish, lease_s: float = 60.0) -> Grant:
    return store.keys.exchange(owner, [wish], lease_s).result()[0]


def test_a_key_comes_back_as_it_went_in_and_changes_are_seen_by_their_number(
    open_one: Open,
) -> None:
    with open_one() as one, open_one() as other:
        _put(one, _key("k"))
        _put(other, _key("m", budget_usd=0.5))
        keys = other.keys.changed_after(0).result()
        assert [key.key_id for key in keys] == ["k", "m"]
        assert keys[0].digest == b"\0\xff" * 16
        assert keys[1].terms.budget_usd == 0.5
        _put(one, _key("k", revoked_s=7.0))
        (changed,) = other.keys.changed_after(keys[-1].changed).result()
        assert (changed.key_id, changed.revoked_s, changed.created_s) == ("k", 7.0, 1.5)


def test_processes_never_hold_more_than_the_budget_together(open_one: Open) -> None:
    with open_one() as one, open_one() as other:
        _put(one, _key(budget_usd=1.0))
        first = _ask(one, "p", Wish("k", 1, need_usd=0.4, want_usd=0.6))
        assert first.held_usd == 0.4
        second = _ask(other, "q", Wish("k", 1, need_usd=0.7, want_usd=0.7))
        assert (second.held_usd, second.left_usd, second.processes) == (0.6, 0.0, 2)
        assert second.held_by_others_usd == 0.4
        settled = _ask(one, "p", Wish("k", 2, spent_usd=0.1, tokens=9, requests=1, keep_usd=0.0))
        assert (settled.held_usd, settled.spent_usd) == (0.0, (0.1, 0.1, 0.1))
        third = _ask(other, "q", Wish("k", 2, keep_usd=0.6, need_usd=0.1, want_usd=0.1))
        assert math.isclose(third.held_usd, 0.7)
        spends = other.keys.spends().result()
        assert {(one.spent_usd, one.tokens, one.requests) for one in spends} == {(0.1, 9, 1)}
        assert len(spends) == 3


def test_an_exchange_that_runs_twice_books_once(open_one: Open) -> None:
    with open_one() as store:
        _put(store, _key(budget_usd=1.0))
        _ask(store, "p", Wish("k", 1, need_usd=0.5, want_usd=0.5))
        wish = Wish("k", 2, spent_usd=0.25, keep_usd=0.25)
        assert _ask(store, "p", wish) == _ask(store, "p", wish)
        assert _ask(store, "p", Wish("k", 3)).spent_usd == (0.25, 0.25, 0.25)


def test_what_a_dead_process_held_counts_as_spent_until_it_comes_back(open_one: Open) -> None:
    with open_one() as store:
        _put(store, _key(budget_usd=1.0))
        _ask(store, "dead", Wish("k", 1, need_usd=0.5, want_usd=0.5), lease_s=0.0)
        seen = _ask(store, "p", Wish("k", 1, need_usd=0.6, want_usd=0.6))
        assert (seen.held_usd, seen.spent_usd[0], seen.left_usd) == (0.5, 0.5, 0.0)
        assert [one.lost_usd for one in store.keys.holds().result()] == [0.5, 0.0]
        back = _ask(store, "dead", Wish("k", 2, spent_usd=0.2, keep_usd=0.1))
        assert math.isclose(back.spent_usd[0], 0.2)
        assert back.held_usd == 0.1
        assert store.keys.release("dead", [Wish("k", 3, spent_usd=0.1)]).result() is None
        assert [one.owner for one in store.keys.holds().result()] == ["p"]


def test_what_a_process_lost_on_one_day_does_not_lower_the_next_days_spend(
    tmp_path: Path,
) -> None:
    now_s = [86_350.0]
    with EventStore(SqliteBackend(tmp_path / "log.db", lambda: now_s[0])) as store:
        _put(store, _key(budget_usd=8.0))
        _ask(store, "away", Wish("k", 1, need_usd=0.5, want_usd=0.5), lease_s=30.0)
        now_s[0] = 86_390.0
        assert _ask(store, "b", Wish("k", 1)).spent_usd == (0.5, 0.5, 0.5)
        now_s[0] = 86_410.0
        assert _ask(store, "b", Wish("k", 2, spent_usd=0.75)).spent_usd == (1.25, 0.75, 1.25)
        back = _ask(store, "away", Wish("k", 2, spent_usd=0.125))
        assert back.spent_usd == (0.875, 0.875, 0.875)


def test_a_key_that_is_not_there_gets_nothing(open_one: Open) -> None:
    with open_one() as store:
        assert _ask(store, "p", Wish("none", 1, need_usd=1e-9, want_usd=1e-9)).held_usd == 0.0


_SPENDER = """
import sys
from steelyard.store.keys_sql import Wish
from steelyard.store.open_store import open_store
where, owner = sys.argv[1:]
spent = 0.0
with open_store(where) as store:
    for number in range(1, 200, 2):
        asked = Wish("k", number, need_usd=0.01, want_usd=0.03)
        held = store.keys.exchange(owner, [asked], 60.0).result()[0].held_usd
        if held == 0.0:
            break
        told = Wish("k", number + 1, spent_usd=held, requests=1)
        store.keys.exchange(owner, [told], 60.0).result()
        spent += held
print(repr(spent))
"""


def test_two_processes_that_spend_all_they_get_stay_within_the_budget(
    where: str, open_one: Open
) -> None:
    with open_one() as store:
        _put(store, _key(budget_usd=1.0))
        command = [sys.executable, "-c", _SPENDER, where]
        running = [
            subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True)  # noqa: S603
            for name in ("p", "q")
        ]
        spent = [float(one.communicate(timeout=200.0)[0]) for one in running]
        total = _ask(store, "r", Wish("k", 1)).spent_usd[0]
    assert math.isclose(total, math.fsum(spent))
    assert total <= 1.0 + 1e-12
    assert total > 0.95


# ------------------------------------------------------------------ stores of version 3


def _aged_sqlite(where: str) -> None:
    with closing(sqlite3.connect(where, isolation_level=None)) as connection:
        for table in ("keys", "key_spend", "key_holds"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version=3")


def _aged_postgres(where: str) -> None:
    import psycopg  # noqa: PLC0415 - an extra

    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("DROP TABLE steelyard.keys, steelyard.key_spend, steelyard.key_holds")
        connection.execute("UPDATE steelyard.version SET version = 3")


def _aged(where: str) -> None:
    age: Callable[[str], None] = _aged_postgres if "://" in where else _aged_sqlite
    age(where)


def test_a_store_of_version_3_gets_keys_and_keeps_everything(where: str, open_one: Open) -> None:
    event = TaskSubmitted(t_s=1.0, task_id="t", agent="a", arguments={"x": [1, None]})
    with open_one() as store:
        store.submit(Submission(event=event, key="once")).result()
    _aged(where)
    with open_one() as one, open_one() as other:
        assert list(read_store(one)) == [event]
        assert other.task_with_key("once").result() == "t"
        _put(one, _key())
        assert len(other.keys.changed_after(0).result()) == 1


def test_a_log_of_version_3_is_read_without_being_changed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    event = TaskSubmitted(t_s=1.0, task_id="t", agent="a")
    with open_store(path) as store:
        store.append(event)
        store.durable().result()
    _aged_sqlite(str(path))
    assert list(read_events(path)) == [event]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_store_of_another_version_is_refused(where: str, open_one: Open) -> None:
    with open_one():
        pass
    if "://" in where:
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute("UPDATE steelyard.version SET version = 2")
    else:
        with closing(sqlite3.connect(where, isolation_level=None)) as connection:
            connection.execute("PRAGMA user_version=2")
    with pytest.raises(SchemaMismatchError, match="version"), open_one():
        pass


def test_many_processes_may_bring_one_store_up_to_date(postgres: PostgresServer) -> None:
    where = postgres.new_database()
    with open_store(where):
        pass
    _aged_postgres(where)
    opener = (
        "import sys; from steelyard.store.open_store import open_store; open_store(sys.argv[1])"
    )
    command = [sys.executable, "-c", f"{opener}.close()", where]
    running = [subprocess.Popen(command) for _ in range(3)]  # noqa: S603
    assert [one.wait(60.0) for one in running] == [0, 0, 0]
