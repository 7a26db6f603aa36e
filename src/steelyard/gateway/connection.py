"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Coroutine

from steelyard.gateway.exchange import Exchange


async def while_connected(exchange: Exchange, work: Coroutine[None, None, None]) -> bool:
    """Do the work of a request, and cancel it at once when the client leaves.

    Frameworks notice a leaving client at their next write. Here the connection is watched all the
    time, so that neither a long prefill nor a whole answer is computed for nobody.

    Args:
        exchange: The request.
        work: What answers it.

    Returns:
        Whether the work was done; False when the client left before.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(exchange.gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        # A complete response looks like a leaving client, too.
        if not working.done() and not exchange.finished:
            return False
        await working
        return True
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})
        # Whatever a cancelled answer ends with is recorded by the dispatcher, and told to nobody.
        if not working.cancelled():
            working.exception()
