"""The statements behind limits of pools that hold over all processes of a store.

A step that runs in a limited pool has a *place* there: a row with its holder's lease. Everything
here runs inside a transaction of `GroupWriter`, and may run again when the database was away.
"""

from steelyard.domain.pool import PoolLimit
from steelyard.store.backend import Backend


def take_places(
    backend: Backend, owner: str, asked: tuple[str, list[str]], limit: PoolLimit, lease_s: float
) -> list[str]:
    """Give a process places in a pool, as many as its limit has left.

    Args:
        backend: The database.
        owner: Name of the process, unique in the store.
        asked: The pool, and names of the wanted places, the most urgent first.
        limit: How much of the pool may happen at once.
        lease_s: Seconds for which the places are held, unless renewed.

    Returns:
        The names of those given, in the order asked.
    """
    pool, names = asked
    backend.lock_agents()
    now_s = float(backend.execute(f"SELECT {backend.now_sql}")[0][0])
    began_s = now_s - (limit.per_s if limit.starts is not None else 0.0)
    backend.execute(
        "DELETE FROM places WHERE pool = ? AND until_s <= ? AND started_s <= ?",
        (pool, now_s, began_s),
    )
    rows = backend.execute("SELECT name, until_s, started_s FROM places WHERE pool = ?", (pool,))
    # A call that runs again finds what it gave before.
    known = {str(row[0]) for row in rows}
    room = len(names)
    if limit.max_running is not None:
        room = min(room, limit.max_running - sum(row[1] > now_s for row in rows))
    if limit.starts is not None:
        room = min(room, limit.starts - sum(row[2] > began_s for row in rows))
    given: list[str] = []
    for name in names:
        if name in known:
            given.append(name)
        elif room > 0:
            room -= 1
            backend.execute(
                "INSERT INTO places (pool, name, owner, until_s, started_s) VALUES (?, ?, ?, ?, ?)",
                (pool, name, owner, now_s + lease_s, now_s),
            )
            given.append(name)
    return given


def renew_places(backend: Backend, owner: str, lease_s: float) -> None:
    """A process is alive: its places stay."""
    now_s = float(backend.execute(f"SELECT {backend.now_sql}")[0][0])
    backend.execute(
        "UPDATE places SET until_s = ? WHERE owner = ? AND until_s > 0.0", (now_s + lease_s, owner)
    )


def free_place(backend: Backend, pool: str, name: str) -> None:
    """A step has left the pool; its start still counts for a while."""
    backend.execute("UPDATE places SET until_s = 0.0 WHERE pool = ? AND name = ?", (pool, name))
