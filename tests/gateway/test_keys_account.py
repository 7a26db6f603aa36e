"""The books of a key: whatever several processes do and whenever one dies, the budget holds."""

import math
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.key import ApiKey, KeyTerms
from steelyard.gateway.keys_account import Bucket, KeyAccount
from steelyard.store.keys_sql import exchange, put
from steelyard.store.sqlite_backend import SqliteBackend

# What is done: by which process, what, and how much of it.
MOVES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["reserve", "settle", "exchange", "die", "wait"]),
        st.floats(0.001, 0.4),
    ),
    max_size=60,
)
LEASE_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Store:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.backend = SqliteBackend(folder / "s.db", self.clock)
        self.keys = 0

    def new_key(self, terms: KeyTerms) -> str:
        self.keys += 1
        key = ApiKey(key_id=f"k{self.keys}", digest=b"", terms=terms, created_s=0.0)
        put(self.backend, key)
        return key.key_id


@pytest.fixture(scope="module")
def store() -> Generator[Store, None, None]:
    with tempfile.TemporaryDirectory() as folder:
        made = Store(Path(folder))
        with closing(made.backend):
            yield made


class Process:
    """One gateway: its account, and reservations that run."""

    def __init__(self, store: Store, key_id: str, terms: KeyTerms, name: str) -> None:
        self.store = store
        self.name = name
        self.account = KeyAccount(key_id, terms)
        self.running: list[float] = []

    def reserve(self, usd: float) -> None:
        if self.account.take(usd):
            self.account.begin()
            self.running.append(usd)

    def settle(self, part: float) -> float:
        """End the oldest step; it cost a part of what was reserved."""
        if not self.running:
            return 0.0
        reserved_usd = self.running.pop(0)
        spent_usd = reserved_usd * min(1.0, part * 2.5)
        self.account.end(reserved_usd, spent_usd, 1)
        return spent_usd

    def exchange(self, want_usd: float) -> None:
        wish = self.account.wish()
        wish = wish._replace(need_usd=want_usd, want_usd=want_usd)
        (grant,) = exchange(self.store.backend, self.name, [wish], LEASE_S)
        self.account.granted(wish, grant)


@settings(max_examples=60, deadline=None)
@given(moves=MOVES)
def test_processes_that_spend_and_die_never_exceed_the_budget(
    store: Store, moves: list[tuple[int, str, float]]
) -> None:
    terms = KeyTerms(name="n", budget_usd=1.0)
    key_id = store.new_key(terms)
    processes = [Process(store, key_id, terms, f"p{n}") for n in range(3)]
    made = 3
    spent: list[float] = []
    for at, move, amount in moves:
        one = processes[at]
        if move == "reserve":
            one.reserve(amount)
        elif move == "settle":
            spent.append(one.settle(amount))
        elif move == "exchange":
            one.exchange(amount)
        elif move == "wait":
            store.clock.now_s += amount * 100.0
        else:
            # What ran there may have cost all that was reserved; nobody will ever know.
            spent += one.running
            processes[at] = Process(store, key_id, terms, f"p{made}")
            made += 1
        assert math.fsum(spent) <= 1.0 + 1e-9
    rows = store.backend.execute("SELECT held_usd FROM key_holds WHERE key_id = ?", (key_id,))
    booked = store.backend.execute(
        "SELECT spent_usd FROM key_spend WHERE key_id = ? AND period = 'total'", (key_id,)
    )
    held = math.fsum(row[0] for row in rows) + math.fsum(row[0] for row in booked)
    assert held <= 1.0 + 1e-9


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(2.0, 3.0)
    for _ in range(3):
        assert bucket.wait_s(1.0, 10.0) == 0.0
        bucket.take(1.0)
    assert bucket.wait_s(1.0, 10.0) == 0.5
    assert bucket.wait_s(1.0, 10.5) == 0.0
    assert math.isinf(bucket.wait_s(4.0, 100.0))


def test_processes_share_the_rate_of_a_key(store: Store) -> None:
    terms = KeyTerms(name="n", requests_per_s=10.0)
    key_id = store.new_key(terms)
    one, other = (Process(store, key_id, terms, name) for name in ("a", "b"))
    one.exchange(0.0)
    other.exchange(0.0)
    one.exchange(0.0)
    for process in (one, other):
        bucket = process.account.requests
        assert bucket is not None
        granted = 0
        while bucket.wait_s(1.0, 0.0) == 0.0:
            bucket.take(1.0)
            granted += 1
        assert granted == 5
