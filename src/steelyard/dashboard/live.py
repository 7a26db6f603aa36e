"""Open pages are told that something happened; they ask for what they show themselves.

One look at the log's last number serves all of them. Nobody looks while no page is open.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial

from steelyard.errors import StoreError
from steelyard.store.reader import StoreReader

# A change is seen after this long, and pages are told at most twice a second.
_LOOK_S = 0.1
_PAUSE_S = 0.5
# Some things change by time alone: how long a step runs, whether a breaker is open.
_ANYWAY_S = 5.0


class Ticker:
    """Tells open pages when the log has grown.

    Args:
        reader: Reads the log.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._changed = asyncio.Condition()
        self._number = 0
        self._open_pages = 0
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def open_pages(self) -> int:
        """How many pages listen?"""
        return self._open_pages

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: one for each time that the page should look again."""
        self._enter()
        try:
            yield b"retry: 1000\n\n"
            seen = self._number
            while not self._closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANYWAY_S), self._changed:
                        await self._changed.wait_for(partial(self._differs, seen))
                seen = self._number
                yield f"data: {seen}\n\n".encode()
        finally:
            self._leave()

    def _enter(self) -> None:
        self._open_pages += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    def _leave(self) -> None:
        self._open_pages -= 1
        if not self._open_pages and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        async with self._changed:
            self._changed.notify_all()

    def _differs(self, seen: int) -> bool:
        return self._closed or self._number != seen

    async def _look(self) -> None:
        while not self._closed:
            try:
                number = await asyncio.wrap_future(self._reader.last_number())
            except StoreError:
                number = self._number
            if number != self._number:
                async with self._changed:
                    self._number = number
                    self._changed.notify_all()
                await asyncio.sleep(_PAUSE_S)
            else:
                await asyncio.sleep(_LOOK_S)
