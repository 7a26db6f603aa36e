"""Spend at capped providers in every store: held, told, lost with a process, and given back."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.conftest import Open
from tests.store.postgres_server import PostgresServer

from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.fleet.provider_spend import ProviderSpend
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store
from steelyard.store.provider_spend import SpendGrant, SpendWish, exchange
from steelyard.store.sqlite_backend import SqliteBackend, connect
from steelyard.store.sqlite_log import SqliteEventLog

CAP = SpendCap(usd_per_hour=1.0, usd_per_day=2.0)


def _wish(number: int, spent: float = 0.0, reserved: float = 0.0, need: float = 0.0) -> SpendWish:
    return SpendWish("openai", CAP, number, spent, reserved, 0.0, need)


def _one(store: EventStore, owner: str, wish: SpendWish, lease_s: float = 30.0) -> SpendGrant:
    return store.spend.exchange(owner, [wish], lease_s).result()[0]


def test_two_processes_hold_no_more_than_the_cap_together(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        first = _one(one, "a", _wish(1, need=0.75))
        assert first.held_usd == 0.75
        second = _one(two, "b", _wish(1, need=0.75))
        assert second.held_usd == pytest.approx(0.25)
        assert second.left_usd == pytest.approx(0.0)
        told = _one(one, "a", _wish(2, spent=0.5))
        assert told.spent_usd == (0.5, 0.5)
        assert told.held_usd == pytest.approx(0.25 / 16.0 / 2.0)
        assert two.spend.spent().result() == {"openai": (0.5, 0.5)}


def test_without_needs_a_process_holds_a_small_part_and_gives_it_back_at_its_end(
    open_one: Open,
) -> None:
    with open_one() as store:
        assert _one(store, "a", _wish(1)).held_usd == pytest.approx(1.0 / 16.0)
        store.spend.release("a", [_wish(2, spent=0.25)]).result()
        assert _one(store, "b", _wish(1, need=1.0)).held_usd == pytest.approx(0.75)


def test_an_exchange_whose_answer_was_lost_is_not_booked_twice(open_one: Open) -> None:
    with open_one() as store:
        _one(store, "a", _wish(1, need=0.5))
        again = [_one(store, "a", _wish(2, spent=0.25, reserved=0.25)) for _ in range(3)]
        assert len({one.held_usd for one in again}) == 1
        assert again[-1].spent_usd == (0.25, 0.25)


def test_what_a_dead_process_held_counts_as_spent_until_it_is_back(tmp_path: Path) -> None:
    now_s = [1000.0]
    with EventStore(SqliteBackend(tmp_path / "log.db", lambda: now_s[0])) as store:
        _one(store, "dead", _wish(1, need=0.5), lease_s=30.0)
        now_s[0] += 31.0
        found = _one(store, "b", _wish(1, need=1.0))
        assert found.spent_usd == (0.5, 0.5)
        assert found.held_usd == 0.5
        back = _one(store, "dead", _wish(2, spent=0.125, reserved=0.0))
        assert back.spent_usd == (0.125, 0.125)


def test_what_a_process_lost_in_one_hour_does_not_lower_the_next_hours_spend(
    tmp_path: Path,
) -> None:
    now_s = [3550.0]
    with EventStore(SqliteBackend(tmp_path / "log.db", lambda: now_s[0])) as store:
        _one(store, "away", _wish(1, need=0.5), lease_s=30.0)
        now_s[0] = 3590.0
        assert _one(store, "b", _wish(1)).spent_usd == (0.5, 0.5)
        now_s[0] = 3610.0
        assert _one(store, "b", _wish(2, spent=0.75)).spent_usd == (0.75, 1.25)
        back = _one(store, "away", _wish(2, spent=0.125))
        assert back.spent_usd == (0.875, 0.875)


def test_steps_under_way_are_held_for_after_others_cost_more_than_predicted(
    open_one: Open,
) -> None:
    with open_one() as store:
        _one(store, "a", _wish(1, need=0.25))
        told = _one(store, "a", _wish(2, spent=0.5, reserved=0.25, need=0.125))
        assert told.held_usd == 0.375


def test_the_next_hour_renews_the_hour_and_not_the_day(tmp_path: Path) -> None:
    now_s = [1000.0]
    with EventStore(SqliteBackend(tmp_path / "log.db", lambda: now_s[0])) as store:
        _one(store, "a", _wish(1, need=1.0))
        _one(store, "a", _wish(2, spent=1.0))
        assert _one(store, "a", _wish(3, need=1.0)).held_usd == 0.0
        now_s[0] = 3600.0
        assert _one(store, "a", _wish(4, need=1.0)).held_usd == 1.0
        _one(store, "a", _wish(5, spent=1.0))
        now_s[0] = 7200.0
        assert _one(store, "a", _wish(6, need=1.0)).held_usd == 0.0


moves = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["place", "end", "tell", "die", "wait"]),
        st.floats(0.001, 0.3),
    ),
    max_size=40,
)


@given(moves)
def test_processes_that_place_end_tell_and_die_in_any_order_keep_the_cap(
    moves: list[tuple[int, str, float]],
) -> None:
    with TemporaryDirectory() as folder:
        rig = _Rig(Path(folder) / "log.db")
        for process, move, usd in moves:
            rig.move(process, move, usd)
            assert rig.spent_usd + rig.reserved_usd <= 1.0 + 1e-9
        rig.backend.close()


class _Rig:
    """Three processes on one database; those that die leave their hold behind."""

    def __init__(self, path: Path) -> None:
        self.now_s = 1000.0
        self.backend = SqliteBackend(path, lambda: self.now_s)
        self.numbers = [0, 0, 0]
        self.lives = [0, 0, 0]
        self.blocks = [0.0, 0.0, 0.0]
        self.spent_usd = 0.0
        self.open: list[list[float]] = [[], [], []]
        self.books = [_books(), _books(), _books()]

    @property
    def reserved_usd(self) -> float:
        return math.fsum(usd for process in self.open for usd in process)

    def move(self, process: int, move: str, usd: float) -> None:
        books, open_ = self.books[process], self.open[process]
        if move == "place":
            if usd <= books.provider_left("p", self.now_s).usd:
                books.reserve("p", usd)
                open_.append(usd)
            else:
                self._tell(process, usd)
        elif move == "end" and open_:
            reserved = open_.pop()
            cost = min(reserved, usd)
            books.settle("p", reserved, cost, self.now_s)
            self.spent_usd += cost
        elif move == "tell":
            self._tell(process, 0.0)
        elif move == "die":
            # Its steps died with it, and cost what had been predicted of them.
            self.spent_usd += math.fsum(open_)
            self.lives[process] += 1
            self.numbers[process], self.blocks[process] = 0, 0.0
            self.open[process], self.books[process] = [], _books()
        elif move == "wait":
            self.now_s += 10.0

    def _tell(self, process: int, need_usd: float) -> None:
        books = self.books[process]
        self.numbers[process] += 1
        free_usd = books.keep("p", self.blocks[process])
        wish = SpendWish(
            provider="p",
            cap=SpendCap(usd_per_hour=1.0),
            number=self.numbers[process],
            spent_usd=books.take_untold()["p"],
            reserved_usd=books.reserved_usd("p"),
            free_usd=free_usd,
            need_usd=max(0.0, need_usd - free_usd),
        )
        self.backend.begin()
        owner = f"{process}-{self.lives[process]}"
        grant = exchange(self.backend, owner, [wish], 1e9)[0]
        self.backend.commit()
        self.blocks[process] = grant.block_usd
        books.give("p", grant.held_usd - wish.reserved_usd - wish.free_usd)


def _books() -> ProviderSpend:
    books = ProviderSpend()
    spec = PoolSpec(
        name="llm",
        provider="p",
        region="",
        arch="arm64",
        hardware="vendor",
        offering="",
        usd_per_hour=0.0,
        replicas=1,
        spend_cap=SpendCap(usd_per_hour=1.0),
    )
    books.put(spec, (spec,))
    # From now on it may spend what it is given, and nothing is given yet.
    books.keep("p", 0.0)
    return books


def test_stores_from_before_get_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    SqliteEventLog(path).close()
    old = connect(path, "rw")
    old.execute("DROP TABLE provider_spend")
    old.execute("DROP TABLE provider_holds")
    old.close()
    with SqliteEventLog(path) as store:
        assert _one(store, "a", _wish(1, need=0.5)).held_usd == 0.5


def test_a_database_from_before_gets_the_tables(postgres: PostgresServer) -> None:
    psycopg = pytest.importorskip("psycopg")
    url = postgres.new_database()
    open_store(url).close()
    with psycopg.connect(url, autocommit=True) as old:
        old.execute("DROP TABLE steelyard.provider_spend, steelyard.provider_holds")
    with open_store(url) as store:
        assert _one(store, "a", _wish(1, need=0.5)).held_usd == 0.5
