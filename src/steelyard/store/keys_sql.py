"""The statements behind keys: what they are, what they have spent, who holds how much of a budget.

A process that serves a key's requests *holds* a part of its budget: a row with a lease. It spends
from that part without asking again, and tells what it has spent when it asks for more. So

    spent + held by all processes <= budget

holds in the store at every commit, for every span of time that has a limit. A process that dies
leaves its hold behind; when the lease is over, what it held counts as spent (`lost_usd` says how
much), since it may have been. Should it come back, it gets back what it had not spent.

Everything here runs inside a transaction of `GroupWriter`, and may run again when the database was
away: the number of an exchange tells that it has been made.
"""

import datetime as dt
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from steelyard.domain.key import ApiKey, KeyTerms, budget_left_usd
from steelyard.store.backend import Backend

_COLUMNS = "key_id, digest, terms, created_s, revoked_s, old_digest, old_until_s, changed"
_NEXT = "(SELECT coalesce(max(changed), 0) + 1 FROM keys)"
# Holds of processes that died are kept so long, for those that were only away.
_FORGET_S = 86_400.0
# More than it needs is given to a process only while that is a small part of what is left.
_BLOCK_FRAC = 1.0 / 16.0


class Periods(NamedTuple):
    """Names of the spans of time that money is counted in.

    Attributes:
        total: Since the key was made.
        day: The UTC day, `2026-11-23`.
        month: The UTC month, `2026-11`.
    """

    total: str
    day: str
    month: str

    @classmethod
    def at(cls, now_s: float) -> "Periods":
        """Which spans is a moment in?

        Args:
            now_s: Seconds since 1970.

        >>> Periods.at(0.0)
        Periods(total='total', day='1970-01-01', month='1970-01')
        """
        day = dt.datetime.fromtimestamp(now_s, dt.UTC).date().isoformat()
        return cls("total", day, day[:7])


class Wish(NamedTuple):
    """What one process tells and asks about one key.

    Attributes:
        key_id: The key.
        number: Grows with every exchange of the process about this key.
        spent_usd: Spent since the last one.
        tokens: Tokens used since.
        requests: Requests ended since.
        keep_usd: What it wants to go on holding of what it holds.
        need_usd: What it needs beyond that for the steps that wait.
        want_usd: What it would like beyond that; not less than `need_usd`.
    """

    key_id: str
    number: int
    spent_usd: float = 0.0
    tokens: int = 0
    requests: int = 0
    keep_usd: float = 0.0
    need_usd: float = 0.0
    want_usd: float = 0.0


class Grant(NamedTuple):
    """What the store answers.

    Attributes:
        held_usd: What the process holds now.
        left_usd: What nobody has spent or holds.
        held_by_others_usd: What other processes hold, and may give back.
        spent_usd: Spent in total, this UTC day, this UTC month; lost holds included.
        processes: How many processes serve the key now, this one included.
    """

    held_usd: float
    left_usd: float
    held_by_others_usd: float
    spent_usd: tuple[float, float, float]
    processes: int


class Spend(NamedTuple):
    """What a key has used in one span of time."""

    key_id: str
    period: str
    spent_usd: float
    tokens: int
    requests: int


class Hold(NamedTuple):
    """What one process holds of a key's budget, or has lost of it."""

    key_id: str
    owner: str
    held_usd: float
    lost_usd: float
    until_s: float


def put(backend: Backend, key: ApiKey) -> None:
    """Put a new key into the store, or a changed one in the place of the old one."""
    backend.lock_agents()
    backend.execute(
        f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, {_NEXT})"  # noqa: S608
        " ON CONFLICT (key_id) DO UPDATE SET digest = excluded.digest, terms = excluded.terms,"
        " revoked_s = excluded.revoked_s, old_digest = excluded.old_digest,"
        " old_until_s = excluded.old_until_s, changed = excluded.changed",
        (
            *(key.key_id, key.digest, msgspec.json.encode(key.terms), key.created_s),
            *(key.revoked_s, key.old_digest, key.old_until_s),
        ),
    )


def changed_after(backend: Backend, after: int) -> list[ApiKey]:
    """Which keys were made or changed after a number, in that order?"""
    rows = backend.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE changed > ? ORDER BY changed",  # noqa: S608
        (after,),
    )
    return [
        ApiKey(
            key_id=str(row[0]),
            digest=bytes(row[1]),
            terms=msgspec.json.decode(bytes(row[2]), type=KeyTerms),
            created_s=float(row[3]),
            revoked_s=float(row[4]),
            old_digest=bytes(row[5]),
            old_until_s=float(row[6]),
            changed=int(row[7]),
        )
        for row in rows
    ]


def spends(backend: Backend) -> list[Spend]:
    """What have all keys used, by span of time?"""
    rows = backend.execute(
        "SELECT key_id, period, spent_usd, tokens, requests FROM key_spend ORDER BY key_id, period"
    )
    return [Spend(str(k), str(p), float(u), int(t), int(r)) for k, p, u, t, r in rows]


def holds(backend: Backend) -> list[Hold]:
    """Who holds how much of which key's budget?"""
    rows = backend.execute(
        "SELECT key_id, owner, held_usd, lost_usd, until_s FROM key_holds ORDER BY key_id, owner"
    )
    return [Hold(str(k), str(o), float(h), float(x), float(u)) for k, o, h, x, u in rows]


def exchange(backend: Backend, owner: str, wishes: list[Wish], lease_s: float) -> list[Grant]:
    """Book what a process has spent, and let it hold more.

    Args:
        backend: The database.
        owner: Name of the process, unique in the store.
        wishes: One per key.
        lease_s: Seconds for which the holds last unless renewed by the next exchange.

    Returns:
        One grant per wish, in their order.
    """
    backend.lock_agents()
    now_s = float(backend.execute(f"SELECT {backend.now_sql}")[0][0])
    return [_exchange_one(backend, owner, wish, (now_s, lease_s)) for wish in wishes]


def _exchange_one(backend: Backend, owner: str, wish: Wish, time_s: tuple[float, float]) -> Grant:
    now_s, lease_s = time_s
    periods = Periods.at(now_s)
    spent = _spent(backend, wish.key_id, periods)
    rows = backend.execute(
        "SELECT owner, held_usd, lost_usd, until_s, number FROM key_holds WHERE key_id = ?",
        (wish.key_id,),
    )
    mine = next((row for row in rows if row[0] == owner), None)
    others = [row for row in rows if row[0] != owner]
    lost = _end_leases(backend, wish.key_id, others, now_s)
    _book(backend, Wish(wish.key_id, wish.number), periods, lost)
    spent = _plus(spent, lost)
    held_by_others = math.fsum(row[1] for row in others if row[3] > now_s)
    alive = 1 + sum(row[3] > now_s for row in others)
    terms = _terms(backend, wish.key_id)
    if mine is not None and int(mine[4]) >= wish.number:
        # Made before, and its answer was lost on the way.
        left = budget_left_usd(terms, spent) - held_by_others - mine[1]
        return Grant(mine[1], left, held_by_others, spent, alive)
    # A lease that ran out meanwhile was charged in full; now it is known what of it was spent.
    refund, before = (0.0, 0.0) if mine is None else (mine[2], mine[1] + mine[2])
    kept = min(wish.keep_usd, max(0.0, before - wish.spent_usd))
    _book(backend, wish, periods, wish.spent_usd)
    spent = _plus(spent, wish.spent_usd)
    if mine is not None and refund:
        # A day that has begun since was not charged: what others spent in it stays.
        charged = [one for one in Periods.at(_number(mine[3])) if one in periods]
        _book(backend, Wish(wish.key_id, wish.number), charged, -refund)
        spent = _spent(backend, wish.key_id, periods)
    left = budget_left_usd(terms, spent) - held_by_others - kept
    given = _given(wish, left)
    held = kept + given
    backend.execute(
        "INSERT INTO key_holds (key_id, owner, held_usd, lost_usd, until_s, number)"
        " VALUES (?, ?, ?, 0.0, ?, ?) ON CONFLICT (key_id, owner) DO UPDATE SET"
        " held_usd = excluded.held_usd, lost_usd = 0.0, until_s = excluded.until_s,"
        " number = excluded.number",
        (wish.key_id, owner, held, now_s + lease_s, wish.number),
    )
    return Grant(held, left - given, held_by_others, spent, alive)


def release(backend: Backend, owner: str, wishes: list[Wish]) -> None:
    """A process ends well: book what it has spent; it holds nothing any more."""
    exchange(backend, owner, [wish._replace(keep_usd=0.0) for wish in wishes], 0.0)
    for wish in wishes:
        backend.execute(
            "DELETE FROM key_holds WHERE key_id = ? AND owner = ?", (wish.key_id, owner)
        )


def _given(wish: Wish, left_usd: float) -> float:
    """How much more may a process hold? What it would like, in small parts of what is left."""
    wanted = min(wish.want_usd, max(wish.need_usd, left_usd * _BLOCK_FRAC))
    # Where that is too much it gets the rest: some of the steps that wait may do with it.
    return max(0.0, min(wanted, left_usd))


def _end_leases(
    backend: Backend, key_id: str, others: list[tuple[object, ...]], now_s: float
) -> float:
    """Holds whose lease is over count as spent from now; how much is that, newly?"""
    over = [row for row in others if _number(row[3]) <= now_s]
    lost = math.fsum(_number(row[1]) for row in over)
    for row in over:
        if _number(row[3]) < now_s - _FORGET_S:
            sql = "DELETE FROM key_holds WHERE key_id = ? AND owner = ?"
            backend.execute(sql, (key_id, row[0]))
        elif _number(row[1]):
            backend.execute(
                "UPDATE key_holds SET lost_usd = lost_usd + held_usd, held_usd = 0.0,"
                " until_s = ? WHERE key_id = ? AND owner = ?",
                (now_s, key_id, row[0]),
            )
    return lost


def _spent(backend: Backend, key_id: str, periods: Periods) -> tuple[float, float, float]:
    rows = backend.execute(
        "SELECT period, spent_usd FROM key_spend WHERE key_id = ? AND period IN (?, ?, ?)",
        (key_id, *periods),
    )
    found = {str(period): float(usd) for period, usd in rows}
    total, day, month = (found.get(period, 0.0) for period in periods)
    return total, day, month


def _book(backend: Backend, wish: Wish, periods: Sequence[str], usd: float) -> None:
    if usd == 0.0 and not wish.tokens and not wish.requests:
        return
    for period in periods:
        backend.execute(
            "INSERT INTO key_spend AS known (key_id, period, spent_usd, tokens, requests)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (key_id, period) DO UPDATE SET"
            " spent_usd = CASE WHEN known.spent_usd + excluded.spent_usd > 0.0"
            " THEN known.spent_usd + excluded.spent_usd ELSE 0.0 END,"
            " tokens = known.tokens + excluded.tokens,"
            " requests = known.requests + excluded.requests",
            (wish.key_id, period, usd, wish.tokens, wish.requests),
        )


def _terms(backend: Backend, key_id: str) -> KeyTerms:
    rows = backend.execute("SELECT terms FROM keys WHERE key_id = ?", (key_id,))
    # A key that is not there allows nothing.
    if not rows:
        return KeyTerms(name="", budget_usd=0.0)
    return msgspec.json.decode(bytes(rows[0][0]), type=KeyTerms)


def _plus(spent: tuple[float, float, float], more_usd: float) -> tuple[float, float, float]:
    total, day, month = spent
    return total + more_usd, day + more_usd, month + more_usd


def _number(value: object) -> float:
    return value if isinstance(value, float) else float(str(value))
