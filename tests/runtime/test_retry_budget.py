"""Who tries again when more fails at once than the retry budget has."""

import asyncio

import msgspec
import pytest
from tests.runtime.conftest import llm_step

from steelyard.errors import PoolUnavailableError
from steelyard.runtime.retry_budget import Retries

LOST = PoolUnavailableError("the node is gone")


async def _drained(monkeypatch: pytest.MonkeyPatch) -> Retries:
    async def at_once(_: float) -> None:
        return

    monkeypatch.setattr(asyncio, "sleep", at_once)
    retries = Retries(lambda: 0.0)
    for number in range(10):
        await retries.next_attempt(llm_step(f"t{number}"), LOST, 0)
    return retries


async def test_a_request_beyond_the_budget_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    retries = await _drained(monkeypatch)
    with pytest.raises(PoolUnavailableError):
        await retries.next_attempt(llm_step("t"), LOST, 0)


async def test_a_durable_tasks_step_waits_and_tries_again_up_to_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retries = await _drained(monkeypatch)
    durable = msgspec.structs.replace(llm_step("t"), fence=1)
    assert (await retries.next_attempt(durable, LOST, 0)).attempt == 1
    hurried = msgspec.structs.replace(durable, deadline_s=0.9)
    with pytest.raises(PoolUnavailableError):
        await retries.next_attempt(hurried, LOST, 0)
