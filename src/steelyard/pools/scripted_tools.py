"""A tool pool that answers from a script: the test double for whoever runs tool steps."""

import asyncio
from typing import Any

import msgspec

from steelyard.errors import PoolError
from steelyard.pools.backend import ToolOutcome, ToolRequest


class ScriptedToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool does with one call.

    Attributes:
        result: What the tool returns.
        cpu_s: CPU seconds to be told.
        wall_s: Seconds from call to return to be told.
        max_memory_bytes: Peak memory to be told.
        error: Raised instead.
        before_end: Waited for before the call ends.
    """

    result: Any = None
    cpu_s: float = 0.5
    wall_s: float = 0.75
    max_memory_bytes: int = 0
    error: PoolError | None = None
    before_end: asyncio.Event | None = None


class ScriptedToolPool:
    """Runs any tool as the script says.

    Args:
        script: One run per call, in order; the last one is repeated.
    """

    def __init__(self, script: tuple[ScriptedToolRun, ...] = (ScriptedToolRun(),)) -> None:
        self._script = script
        self._changed = asyncio.Condition()
        self.requests: list[ToolRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled = 0

    @property
    def slots(self) -> int:
        """As many as are asked for: callers keep to the pool's specification."""
        return 1_000_000

    async def start(self) -> None:
        """Nothing is to be started."""

    async def close(self) -> None:
        """Nothing is to be stopped."""

    async def wait_in_flight(self, count: int) -> None:
        """Wait until exactly so many calls are being run.

        Args:
            count: How many.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight == count)

    async def run(self, request: ToolRequest) -> ToolOutcome:
        """Run as the script says.

        Args:
            request: Kept in `requests`.

        Returns:
            What the script says.

        Raises:
            PoolError: As the script says.
        """
        run = self._script[min(len(self.requests), len(self._script) - 1)]
        self.requests.append(request)
        await self._count(+1)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if run.before_end is not None:
                await run.before_end.wait()
            if run.error is not None:
                raise run.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)
        return ToolOutcome(
            result=run.result,
            cpu_s=run.cpu_s,
            wall_s=run.wall_s,
            max_memory_bytes=run.max_memory_bytes,
        )

    async def _count(self, change: int) -> None:
        self.in_flight += change
        async with self._changed:
            self._changed.notify_all()
