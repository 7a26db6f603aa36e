"""The books of all keys that this process serves, kept in step with the store.

Reserving and settling happen in memory. One loop tells the store twice a second what was spent and
how much this process wants to hold; a step for which too little is held here waits for the loop.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator

from steelyard.domain.events import AttemptFinished, Event
from steelyard.domain.key import ApiKey
from steelyard.errors import StoreError
from steelyard.gateway.keys_account import KeyAccount, Waiter
from steelyard.gateway.keys_costs import MostCosts
from steelyard.gateway.keys_ring import KeyRing
from steelyard.gateway.keys_use import KeyUse
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.keys import KeyStore
from steelyard.store.keys_sql import Grant

_TICK_S = 0.5
# What a process holds counts as spent when nothing was heard of it for so long.
_LEASE_S = 30.0
_RENEW_S = _LEASE_S / 3.0


class KeyBooks:
    """Reserves and settles for all keys.

    Args:
        store: Where budgets are.
        dispatcher: What steps cost is heard from it.
    """

    def __init__(self, store: KeyStore, dispatcher: Dispatcher) -> None:
        self._store = store
        self.dispatcher = dispatcher
        self.most = MostCosts()
        self._owner = f"gateway-{uuid.uuid4().hex}"
        self._accounts: dict[str, KeyAccount] = {}
        self._running: dict[tuple[str, int], KeyUse] = {}
        self._wake = asyncio.Event()
        self._told_s = 0.0
        dispatcher.subscribe(self._heard)

    def use(self, key: ApiKey) -> KeyUse:
        """A request with this key has come: it may be served, but for its rate and its money."""
        account = self._accounts.get(key.key_id)
        if account is None:
            account = self._accounts[key.key_id] = KeyAccount(key.key_id, key.terms)
        account.change_terms(key.terms)
        return KeyUse(key, account, self)

    def started(self, step_key: tuple[str, int], use: KeyUse) -> None:
        """Costs of this step's attempts are this request's from now on."""
        self._running.setdefault(step_key, use)

    def ended(self, step_key: tuple[str, int], use: KeyUse) -> None:
        """The step is over."""
        if self._running.get(step_key) is use:
            del self._running[step_key]

    async def reserve(self, account: KeyAccount, usd: float) -> Grant | None:
        """Take money for a step out of what this process holds, or ask the store for more.

        Args:
            account: The key's.
            usd: How much.

        Returns:
            None when it is reserved; what the store said when there is too little.

        Raises:
            StoreError: The store is broken.
        """
        if not account.waiting and account.take(usd):
            return None
        granted: asyncio.Future[Grant | None] = asyncio.get_running_loop().create_future()
        account.waiting.append(Waiter(usd, granted))
        self._wake.set()
        try:
            return await granted
        except asyncio.CancelledError:
            # It may have been granted in the very turn in which the client left.
            if granted.done() and not granted.cancelled() and granted.result() is None:
                account.free_usd += usd
                account.reserved_usd -= usd
            raise

    async def run(self) -> None:
        """Keep in step with the store until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._exchange()
            except StoreError as error:
                for account in self._accounts.values():
                    account.failed(error)

    async def _exchange(self) -> None:
        now_s = asyncio.get_running_loop().time()
        renews = now_s - self._told_s > _RENEW_S
        if renews:
            self._told_s = now_s
        asked = [one for one in self._accounts.values() if one.has_news or (renews and one.running)]
        if not asked:
            return
        wishes = [one.wish() for one in asked]
        exchange = self._store.exchange(self._owner, wishes, _LEASE_S)
        grants = await asyncio.shield(asyncio.wrap_future(exchange))
        for account, wish, grant in zip(asked, wishes, grants, strict=True):
            account.granted(wish, grant)

    async def close(self) -> None:
        """Tell the store what was spent, and hold nothing any more."""
        wishes = [one.wish() for one in self._accounts.values()]
        if wishes:
            with contextlib.suppress(StoreError):
                await asyncio.wrap_future(self._store.release(self._owner, wishes))

    def _heard(self, event: Event) -> None:
        if self._running and isinstance(event, AttemptFinished):
            use = self._running.get((event.task_id, event.step_id))
            if use is not None:
                use.spent(event)


class KeyDesk:
    """Who may ask, and for how much: all that a gateway needs to know of a store's keys.

    Attributes:
        ring: Finds keys.
        books: Reserves and settles.
    """

    def __init__(self, ring: KeyRing, books: KeyBooks) -> None:
        self.ring = ring
        self.books = books


@contextlib.asynccontextmanager
async def key_desk(store: KeyStore, dispatcher: Dispatcher) -> AsyncGenerator[KeyDesk, None]:
    """Know a store's keys while the block runs.

    Args:
        store: Where keys are.
        dispatcher: Runs the steps that cost.

    Yields:
        The desk; all keys are known.
    """
    desk = KeyDesk(KeyRing(store), KeyBooks(store, dispatcher))
    await desk.ring.refresh()
    loops = [asyncio.create_task(desk.ring.watch()), asyncio.create_task(desk.books.run())]
    try:
        yield desk
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await desk.books.close()
