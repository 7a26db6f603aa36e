"""What do all processes of a store spend at each provider that has a cap, and who may spend more?

As with keys (`keys_sql`), a process *holds* a part of a cap: a row with a lease. It places steps on
that part without asking again, and tells what they cost when it asks for more. So

    spent in the span + held by all processes <= cap

holds at every commit, for the UTC hour and the UTC day by the database's clock; what the steps of
a process cost beyond their predictions is all that may come on top. A process that dies leaves its
hold behind; when the lease is over, what it held counts as spent, since it may have been. Should it
come back, it gets back what it had not spent. Earlier stores get the tables when they are opened to
be written, and earlier versions do not look at them.
"""

import datetime as dt
import math
from concurrent.futures import Future
from typing import NamedTuple

from steelyard.domain.pool import SpendCap
from steelyard.store import waiting_sql
from steelyard.store.backend import Backend
from steelyard.store.group_writer import GroupWriter

SQLITE_SPEND = """
CREATE TABLE IF NOT EXISTS provider_spend (
    provider TEXT NOT NULL,
    span TEXT NOT NULL,
    spent_usd REAL NOT NULL,
    PRIMARY KEY (provider, span)
) STRICT;
CREATE TABLE IF NOT EXISTS provider_holds (
    provider TEXT NOT NULL,
    owner TEXT NOT NULL,
    held_usd REAL NOT NULL,
    lost_usd REAL NOT NULL,
    until_s REAL NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (provider, owner)
) STRICT
"""
POSTGRES_SPEND = (
    SQLITE_SPEND.replace(" STRICT", "")
    .replace("REAL", "DOUBLE PRECISION")
    .replace("INTEGER", "BIGINT")
)
# Beyond its needs a process is given this part of what is left, divided by the processes: so much
# is lost to the span when it dies.
_BLOCK_FRAC = 1.0 / 16.0
# Holds of processes that died are kept so long, for those that were only away.
_FORGET_S = 86_400.0


class SpendWish(NamedTuple):
    """What one process tells and asks about one provider.

    Attributes:
        provider: The provider.
        cap: Its cap, as this process is configured.
        number: Grows with every exchange of the process.
        spent_usd: Spent since the last one.
        reserved_usd: Predicted of steps under way.
        free_usd: What else it wants to go on holding.
        need_usd: What it needs beyond that, for steps that wait.
    """

    provider: str
    cap: SpendCap
    number: int
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    free_usd: float = 0.0
    need_usd: float = 0.0


class SpendGrant(NamedTuple):
    """What the store answers.

    Attributes:
        held_usd: What the process holds now.
        block_usd: What it should hold at most beyond what is reserved.
        left_usd: What nobody has spent or holds; negative where steps cost more than predicted.
        spent_usd: Spent by all processes this hour and this day, lost holds included.
    """

    held_usd: float
    block_usd: float
    left_usd: float
    spent_usd: tuple[float, float]


class SpendStore:
    """What a store knows of the spend at providers.

    Args:
        writer: The store's.
    """

    def __init__(self, writer: GroupWriter) -> None:
        self._writer = writer

    def exchange(
        self, owner: str, wishes: list[SpendWish], lease_s: float
    ) -> "Future[list[SpendGrant]]":
        """Book what a process has spent, and let it hold more; see `exchange`."""
        return self._writer.call(lambda backend: exchange(backend, owner, wishes, lease_s))

    def release(self, owner: str, wishes: list[SpendWish]) -> "Future[None]":
        """Book what a process has spent; it holds nothing any more."""
        return self._writer.call(lambda backend: release(backend, owner, wishes))

    def wake(self) -> "Future[None]":
        """Let parked tasks look again that wait for room: a cap may be another one now."""
        return self._writer.call(waiting_sql.wake_capped)

    def spent(self) -> "Future[dict[str, tuple[float, float]]]":
        """What have all processes spent this hour and this day, by provider, in USD?"""
        return self._writer.read(spent)


def exchange(
    backend: Backend, owner: str, wishes: list[SpendWish], lease_s: float
) -> list[SpendGrant]:
    """Book what a process has spent, and let it hold more.

    Runs inside a transaction, and may run again when the database was away.

    Args:
        backend: The database.
        owner: Name of the process, unique in the store.
        wishes: One per provider.
        lease_s: Seconds for which the holds last unless renewed by the next exchange.

    Returns:
        One grant per wish, in their order.
    """
    backend.lock_agents()
    now_s = float(backend.execute(f"SELECT {backend.now_sql}")[0][0])
    return [_exchange_one(backend, owner, wish, (now_s, lease_s)) for wish in wishes]


def release(backend: Backend, owner: str, wishes: list[SpendWish]) -> None:
    """A process ends well: book what it has spent; it holds nothing any more."""
    nothing = [wish._replace(reserved_usd=0.0, free_usd=0.0, need_usd=0.0) for wish in wishes]
    exchange(backend, owner, nothing, 0.0)
    backend.execute("DELETE FROM provider_holds WHERE owner = ?", (owner,))


def spent(backend: Backend) -> dict[str, tuple[float, float]]:
    """What have all processes spent this hour and this day, by provider, in USD?"""
    now_s = float(backend.execute(f"SELECT {backend.now_sql}")[0][0])
    names = backend.execute("SELECT DISTINCT provider FROM provider_spend ORDER BY provider")
    return {str(name): _spent(backend, str(name), _spans(now_s)) for (name,) in names}


def _exchange_one(
    backend: Backend, owner: str, wish: SpendWish, time_s: tuple[float, float]
) -> SpendGrant:
    (now_s, lease_s), spans = time_s, _spans(time_s[0])
    rows = backend.execute(
        "SELECT owner, held_usd, lost_usd, until_s, number FROM provider_holds WHERE provider = ?",
        (wish.provider,),
    )
    mine = next((row for row in rows if row[0] == owner), None)
    others = [row for row in rows if row[0] != owner]
    _book(backend, wish.provider, spans, _end_leases(backend, wish.provider, others, now_s))
    others_usd = math.fsum(row[1] for row in others if row[3] > now_s)
    processes = 1 + sum(row[3] > now_s for row in others)
    held_usd, lost_usd, until_s, number = (0.0, 0.0, 0.0, -1) if mine is None else mine[1:]
    if number >= wish.number:
        # Made before, and its answer was lost on the way.
        found = _spent(backend, wish.provider, spans)
        left_usd = _left(wish.cap, found) - others_usd - held_usd
        return SpendGrant(held_usd, max(0.0, left_usd) * _BLOCK_FRAC, left_usd, found)
    # A lease that ran out was charged in full; now it is known what of it was spent.
    _book(backend, wish.provider, spans, wish.spent_usd)
    # A span that has begun since was not charged: what others spent in it stays.
    charged = tuple(span for span in _spans(until_s) if span in spans)
    _book(backend, wish.provider, charged, -lost_usd)
    found = _spent(backend, wish.provider, spans)
    before_usd = max(0.0, held_usd + lost_usd - wish.spent_usd)
    has_usd = wish.reserved_usd + wish.free_usd
    kept_usd = min(has_usd, before_usd)
    left_usd = _left(wish.cap, found) - others_usd - kept_usd
    block_usd = max(0.0, left_usd + wish.free_usd) * _BLOCK_FRAC / processes
    # Steps may have cost more than was held for them: those under way need theirs all the same.
    wanted_usd = has_usd - kept_usd + max(wish.need_usd, block_usd - wish.free_usd)
    more_usd = max(0.0, min(left_usd, wanted_usd))
    _hold(backend, (wish.provider, owner, kept_usd + more_usd, now_s + lease_s, wish.number))
    return SpendGrant(kept_usd + more_usd, block_usd, left_usd - more_usd, found)


def _hold(backend: Backend, row: tuple[str, str, float, float, int]) -> None:
    backend.execute(
        "INSERT INTO provider_holds (provider, owner, held_usd, lost_usd, until_s, number)"
        " VALUES (?, ?, ?, 0.0, ?, ?) ON CONFLICT (provider, owner) DO UPDATE SET"
        " held_usd = excluded.held_usd, lost_usd = 0.0, until_s = excluded.until_s,"
        " number = excluded.number",
        row,
    )


def _end_leases(
    backend: Backend, provider: str, others: list[tuple[object, ...]], now_s: float
) -> float:
    """Holds whose lease is over count as spent from now; how much is that, newly?"""
    over = [(str(row[0]), _number(row[1]), _number(row[3])) for row in others]
    over = [one for one in over if one[2] <= now_s]
    for owner, held_usd, until_s in over:
        if until_s < now_s - _FORGET_S:
            sql = "DELETE FROM provider_holds WHERE provider = ? AND owner = ?"
            backend.execute(sql, (provider, owner))
        elif held_usd:
            backend.execute(
                "UPDATE provider_holds SET lost_usd = lost_usd + held_usd, held_usd = 0.0,"
                " until_s = ? WHERE provider = ? AND owner = ?",
                (now_s, provider, owner),
            )
    return math.fsum(one[1] for one in over)


def _spans(now_s: float) -> tuple[str, str]:
    """Names of the UTC hour and day that a moment is in."""
    hour = dt.datetime.fromtimestamp(now_s, dt.UTC).strftime("%Y-%m-%dT%H")
    return hour, hour[:10]


def _spent(backend: Backend, provider: str, spans: tuple[str, str]) -> tuple[float, float]:
    rows = backend.execute(
        "SELECT span, spent_usd FROM provider_spend WHERE provider = ? AND span IN (?, ?)",
        (provider, *spans),
    )
    found = {str(span): float(usd) for span, usd in rows}
    return found.get(spans[0], 0.0), found.get(spans[1], 0.0)


def _left(cap: SpendCap, spent_usd: tuple[float, float]) -> float:
    hour_usd = math.inf if cap.usd_per_hour is None else cap.usd_per_hour - spent_usd[0]
    day_usd = math.inf if cap.usd_per_day is None else cap.usd_per_day - spent_usd[1]
    return min(hour_usd, day_usd)


def _book(backend: Backend, provider: str, spans: tuple[str, ...], usd: float) -> None:
    if usd == 0.0:
        return
    for span in spans:
        backend.execute(
            "INSERT INTO provider_spend AS known (provider, span, spent_usd) VALUES (?, ?, ?)"
            " ON CONFLICT (provider, span) DO UPDATE SET spent_usd ="
            " CASE WHEN known.spent_usd + excluded.spent_usd > 0.0"
            " THEN known.spent_usd + excluded.spent_usd ELSE 0.0 END",
            (provider, span, usd),
        )


def _number(value: object) -> float:
    return value if isinstance(value, float) else float(str(value))
