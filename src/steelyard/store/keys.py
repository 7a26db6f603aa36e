"""Keys of a store: made, changed, asked for, and their budgets held by processes."""

from concurrent.futures import Future

from steelyard.domain.key import ApiKey
from steelyard.store import keys_sql
from steelyard.store.group_writer import GroupWriter
from steelyard.store.keys_sql import Grant, Hold, Spend, Wish


class KeyStore:
    """What a store knows of keys; secrets are not among it.

    Args:
        writer: The store's.
    """

    def __init__(self, writer: GroupWriter) -> None:
        self._writer = writer

    def put(self, key: ApiKey) -> "Future[None]":
        """Put a new key into the store, or a changed one in the place of the old one."""
        return self._writer.call(lambda backend: keys_sql.put(backend, key))

    def changed_after(self, after: int) -> "Future[list[ApiKey]]":
        """Which keys were made or changed after a number, in that order? 0 for all."""
        return self._writer.read(lambda backend: keys_sql.changed_after(backend, after))

    def spends(self) -> "Future[list[Spend]]":
        """What have all keys used, by span of time?"""
        return self._writer.read(keys_sql.spends)

    def holds(self) -> "Future[list[Hold]]":
        """Who holds how much of which key's budget?"""
        return self._writer.read(keys_sql.holds)

    def exchange(self, owner: str, wishes: list[Wish], lease_s: float) -> "Future[list[Grant]]":
        """Book what a process has spent, and let it hold more; see `keys_sql.exchange`."""
        return self._writer.call(lambda backend: keys_sql.exchange(backend, owner, wishes, lease_s))

    def release(self, owner: str, wishes: list[Wish]) -> "Future[None]":
        """Book what a process has spent; it holds nothing any more."""
        return self._writer.call(lambda backend: keys_sql.release(backend, owner, wishes))
