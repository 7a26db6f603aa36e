"""Work that goes on beside requests, and is not lost silently when it breaks."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

_LOGGER = logging.getLogger("steelyard.runtime")


@asynccontextmanager
async def in_background(what: str, work: Coroutine[None, None, None]) -> AsyncGenerator[None, None]:
    """Let work run while the block does; it is cancelled at the end.

    An error in it ends nothing else, but it is logged at once: nobody waits for this work.

    Args:
        what: What it is, for the log.
        work: What runs.

    Yields:
        When it has been started.
    """
    running = asyncio.create_task(work)

    def tell(ended: "asyncio.Task[None]") -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            _LOGGER.error(
                "%s has ended and is not done any more: %s; restart this process, and report it",
                what,
                error,
                exc_info=error,
            )

    running.add_done_callback(tell)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
