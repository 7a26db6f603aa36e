"""Where the dashboard meets a server: an application that loads the pages when it is asked.

A gateway that nobody looks at pays for neither templates nor pages.
"""

import asyncio
from typing import TYPE_CHECKING

from steelyard.dashboard.sources import Receive, Refusal, Scope, Send, Sources, Totals
from steelyard.errors import SteelyardBugError

if TYPE_CHECKING:
    from steelyard.dashboard.app import DashboardApp


class LazyDashboard:
    """An ASGI application that imports and builds the dashboard at the first visit.

    Args:
        sources: Where figures come from.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._built: DashboardApp | None = None
        self._building = asyncio.Lock()
        self._doors: tuple[Refusal, Totals] | None = None

    def attach(self, refusal: Refusal, totals: Totals) -> "LazyDashboard":
        """Take what the server knows; it calls this before the first visit.

        Args:
            refusal: Says who may not see the pages.
            totals: What each pool's attempts came to.

        Returns:
            This object.
        """
        self._doors = (refusal, totals)
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app = self._built or await self._build()
        await app(scope, receive, send)

    async def aclose(self) -> None:
        """Let go of open pages, and end what was started for them."""
        if self._built is not None:
            await self._built.close()

    async def _build(self) -> "DashboardApp":
        if self._doors is None:
            raise SteelyardBugError("the dashboard was asked before a server attached it")
        async with self._building:
            if self._built is None:
                loaded = await asyncio.to_thread(_load)
                self._built = loaded(self._sources, *self._doors)
            return self._built


def _load() -> "type[DashboardApp]":
    from steelyard.dashboard.app import DashboardApp  # noqa: PLC0415 - at the first visit

    return DashboardApp
