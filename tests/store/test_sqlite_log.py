import asyncio
from pathlib import Path

from steelyard.domain.events import BidChanged
from steelyard.store.sqlite_log import SqliteEventLog, read_events


def _bid(number: int) -> BidChanged:
    return BidChanged(t_s=float(number), pool="p", bid_usd_per_hour=0.5)


async def test_a_waiter_that_gives_up_does_not_stop_the_log(tmp_path: Path) -> None:
    # asyncio.wrap_future cancels the future it wraps when its own task is cancelled.
    with SqliteEventLog(tmp_path / "log.db") as log:
        for number in range(200):
            log.append(_bid(number))
            waiting = asyncio.wrap_future(log.durable())
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        log.append(_bid(200))
        await asyncio.wait_for(asyncio.wrap_future(log.durable()), timeout=20.0)
    assert len(list(read_events(log.path))) == 201
