import asyncio

import pytest

from steelyard.runtime.background import in_background


async def test_work_that_breaks_is_logged_at_once_and_ends_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ValueError("no such place")

    async with in_background("sharing of loads", work()):
        # A turn to run in, and one to tell of the end.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "sharing of loads has ended" in caplog.text
        assert "no such place" in caplog.text


async def test_work_is_cancelled_with_the_block_and_that_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with in_background("autoscaling", work()):
        await asyncio.sleep(0)
    assert ended == ["cancelled"]
    assert not caplog.records
