"""Keeps what this process may spend at capped providers in step with the other processes.

Twice a second while there is news, it tells the store what steps have cost and holds a part of what
is left of each cap (`steelyard.store.provider_spend`). A step that would have room in the cap, but
not in that part, waits for an exchange. With one process nothing but a restart shows a difference:
what was spent before it counts.
"""

import asyncio
import contextlib
import math
import uuid
from collections.abc import AsyncGenerator, Mapping

from steelyard.domain.pool import SpendCap
from steelyard.errors import StoreError
from steelyard.fleet.provider_spend import ProviderSpend
from steelyard.runtime.background import in_background
from steelyard.store.provider_spend import SpendGrant, SpendStore, SpendWish

_TICK_S = 0.5
# What a process holds counts as spent when nothing was heard of it for so long.
_LEASE_S = 30.0
_RENEW_S = _LEASE_S / 6.0
# A step does not wait longer for an exchange: the store may be away.
_PATIENCE_S = 1.0


class SpendSharing:
    """Exchanges with the store.

    Args:
        store: Where all processes tell what they spend.
        spend: What this process spends.
    """

    def __init__(self, store: SpendStore, spend: ProviderSpend) -> None:
        self._store = store
        self._spend = spend
        self._owner = f"spender-{uuid.uuid4().hex}"
        self._number = 0
        self._grants: dict[str, SpendGrant] = {}
        self._caps: dict[str, SpendCap] = {}
        self._needs: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._done: asyncio.Future[None] | None = None
        self._told_s = -math.inf

    def may_help(self, provider: str, usd: float) -> bool:
        """Might another exchange make room for a step, or did the last one say that there is none?

        Args:
            provider: Who would be paid for it.
            usd: What it would cost.
        """
        grant = self._grants.get(provider)
        is_old = asyncio.get_running_loop().time() - self._told_s > _TICK_S
        # A reload may have raised the cap since.
        if grant is None or is_old or self._spend.caps().get(provider) != self._caps.get(provider):
            return True
        return usd <= grant.left_usd + self._spend.given_usd(provider)

    async def more(self, need_usd: Mapping[str, float]) -> None:
        """Ask for room for a step, and return when the store has answered, or is away.

        Args:
            need_usd: What it would cost, by provider.
        """
        for provider, usd in need_usd.items():
            self._needs[provider] = self._needs.get(provider, 0.0) + usd
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.shield(self._done)

    async def run(self) -> None:
        """Exchange until cancelled, or until the store is broken for good."""
        with contextlib.suppress(StoreError):
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        await self._wake.wait()
                self._wake.clear()
                await self.exchange()

    async def exchange(self) -> None:
        """Tell what was spent and hold a part of what is left, where there is news.

        Raises:
            StoreError: The store is broken.
        """
        now_s = asyncio.get_running_loop().time()
        if not (self._needs or self._spend.has_untold or now_s - self._told_s > _RENEW_S):
            return
        done, self._done = self._done, None
        wishes = self._wishes()
        if wishes:
            told = self._store.exchange(self._owner, wishes, _LEASE_S)
            # What was told counts even where nobody waits for the answer any more.
            grants = await asyncio.shield(asyncio.wrap_future(told))
            for wish, grant in zip(wishes, grants, strict=True):
                self._grants[wish.provider] = grant
                self._caps[wish.provider] = wish.cap
                more_usd = grant.held_usd - wish.reserved_usd - wish.free_usd
                self._spend.give(wish.provider, more_usd)
                self._spend.hear(wish.provider, grant.spent_usd)
        self._told_s = asyncio.get_running_loop().time()
        if done is not None:
            done.set_result(None)

    async def close(self) -> None:
        """Tell the store what was spent, and hold nothing any more."""
        wishes = self._wishes()
        if wishes:
            with contextlib.suppress(StoreError):
                await asyncio.wrap_future(self._store.release(self._owner, wishes))

    def _wishes(self) -> list[SpendWish]:
        self._number += 1
        needs, self._needs = self._needs, {}
        spend, spent_usd = self._spend, self._spend.take_untold()
        wishes: list[SpendWish] = []
        for provider, cap in sorted(spend.caps().items()):
            known = self._grants.get(provider)
            free_usd = spend.keep(provider, 0.0 if known is None else known.block_usd)
            wishes.append(
                SpendWish(
                    provider=provider,
                    cap=cap,
                    number=self._number,
                    spent_usd=spent_usd[provider],
                    reserved_usd=spend.reserved_usd(provider),
                    free_usd=free_usd,
                    need_usd=max(0.0, needs.get(provider, 0.0) - free_usd),
                )
            )
        return wishes


@contextlib.asynccontextmanager
async def shared_spend(
    store: SpendStore, spend: ProviderSpend
) -> AsyncGenerator[SpendSharing, None]:
    """Share what is spent while the block runs; the first exchange is made when it begins.

    Args:
        store: Where all processes tell what they spend.
        spend: What this process spends.

    Yields:
        What asks for more.

    Raises:
        StoreError: The store is broken.
    """
    sharing = SpendSharing(store, spend)
    await sharing.exchange()
    try:
        async with in_background("sharing of spend", sharing.run()):
            yield sharing
    finally:
        await sharing.close()
