"""Signals reach those who wait for them, in order, each one once."""

import asyncio

from steelyard.domain.events import SignalSent, StepRecorded
from steelyard.errors import SignalTimeoutError
from steelyard.runtime.inbox import Inbox
from steelyard.runtime.journal import Journal
from steelyard.runtime.waits import Wait


def _journal(*values: int) -> Journal:
    sent = [SignalSent(t_s=0.0, task_id="t", name="go", value=value) for value in values]
    return Journal.of(sent)


async def test_who_waits_behind_one_that_gave_up_gets_the_first_value() -> None:
    inbox = Inbox(_journal())
    first, second = (asyncio.create_task(inbox.take("go", Wait())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    inbox.update(_journal(7))
    assert await asyncio.wait_for(second, 10) == 7


async def test_values_are_taken_in_the_order_in_which_they_were_asked_for() -> None:
    inbox = Inbox(_journal())
    waiting = [asyncio.create_task(inbox.take("go", Wait())) for _ in range(3)]
    await asyncio.sleep(0)
    inbox.update(_journal(1, 2))
    inbox.update(_journal(1, 2, 3))
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [1, 2, 3]


async def test_a_recorded_wait_that_ran_out_of_patience_has_taken_no_value() -> None:
    def waited(step_id: int, error_code: str) -> StepRecorded:
        return StepRecorded(
            t_s=0.0,
            task_id="t",
            step_id=step_id,
            path=str(step_id),
            kind="signal",
            name="go",
            fingerprint="",
            error_code=error_code,
        )

    journal = _journal(1, 2)
    for event in (waited(0, SignalTimeoutError.code), waited(1, "")):
        journal.apply(event)
    assert await asyncio.wait_for(Inbox(journal).take("go", Wait()), 10) == 2


async def test_a_wait_knows_of_the_signals_that_were_not_for_it() -> None:
    inbox, wait = Inbox(_journal(1)), Wait()
    waiting = asyncio.create_task(inbox.take("other", wait))
    await asyncio.sleep(0)
    assert wait.signals == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
