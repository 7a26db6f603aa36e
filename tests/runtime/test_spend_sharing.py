"""Several dispatchers on one store pay one provider: together they keep to its cap."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from tests.runtime.conftest import REQUEST, llm_spec, llm_step
from tests.store.conftest import Open

from steelyard.domain.events import AttemptFinished, Event, PoolAdded, StepRefused
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.errors import SpendCapError
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.spend_sharing import SpendSharing, shared_spend
from steelyard.store.event_store import EventStore

_PATIENCE_S = 20.0
PRICE = TokenPrice(usd_per_input_token=1e-3, usd_per_cached_token=1e-3, usd_per_output_token=1e-3)


def _spec(usd_per_day: float) -> PoolSpec:
    cap = SpendCap(usd_per_day=usd_per_day)
    return msgspec.structs.replace(llm_spec(64), token_price=PRICE, spend_cap=cap, provider="v")


class _Process:
    """A dispatcher, and what it has recorded."""

    def __init__(self, store: EventStore, usd_per_day: float) -> None:
        recorder = Recorder(WallClock(), store)
        recorder.record(PoolAdded(t_s=recorder.now_s(), spec=_spec(usd_per_day)))
        pool = ScriptedLlmPool()
        self.dispatcher = Dispatcher(recorder, CheapestFeasible(), {"llm": pool}, {})
        self.events: list[Event] = []
        self.waits_s: list[float] = []
        self.dispatcher.subscribe(self.events.append)

    @property
    def costs_usd(self) -> list[float]:
        return [one.cost_usd for one in self.events if isinstance(one, AttemptFinished)]

    async def serve(self, task_id: str) -> bool:
        """Is there money for one more step?"""
        self.dispatcher.open_task(task_id, "a", None, None)
        try:
            async for _ in self.dispatcher.serve_llm(llm_step(task_id), REQUEST):
                pass
        except SpendCapError as error:
            self.waits_s.append(error.retry_after_s or 0.0)
            return False
        return True


async def _shared(stack: AsyncExitStack, store: EventStore, process: _Process) -> SpendSharing:
    spending = shared_spend(store.spend, process.dispatcher.state.spend)
    sharing = await stack.enter_async_context(spending)
    process.dispatcher.placing.spend = sharing
    return sharing


async def test_two_processes_spend_no_more_than_one_cap(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        async with AsyncExitStack() as stack, asyncio.timeout(_PATIENCE_S):
            processes = [_Process(store, 0.5) for store in (one, two)]
            for store, process in zip((one, two), processes, strict=True):
                await _shared(stack, store, process)
            asked = [
                process.serve(f"{name}{number}")
                for number in range(40)
                for name, process in zip("ab", processes, strict=True)
            ]
            served = await asyncio.gather(*asked)
        costs = [usd for process in processes for usd in process.costs_usd]
        assert any(served)
        assert not all(served)
        assert len(costs) == sum(served)
        # A step is predicted to cost more than the scripted answer does.
        assert sum(costs) <= 0.5
        refused = [e for process in processes for e in process.events if isinstance(e, StepRefused)]
        assert {event.refusal.cause for event in refused} == {"spend_cap"}
        waits_s = [wait_s for process in processes for wait_s in process.waits_s]
        assert all(0.0 < wait_s <= 86_400.0 for wait_s in waits_s)


async def test_what_was_spent_before_a_restart_counts(open_one: Open) -> None:
    with open_one() as store:
        async with AsyncExitStack() as stack, asyncio.timeout(_PATIENCE_S):
            first = _Process(store, 0.1)
            await _shared(stack, store, first)
            count = 0
            while await first.serve(f"a{count}"):
                count += 1
        assert count > 0
        async with AsyncExitStack() as stack, asyncio.timeout(_PATIENCE_S):
            second = _Process(store, 0.1)
            await _shared(stack, store, second)
            assert not await second.serve("b")
        told = store.spend.spent().result()["v"]
        assert told == pytest.approx((sum(first.costs_usd),) * 2)


async def test_what_one_gives_back_the_other_spends(open_one: Open) -> None:
    with open_one() as one, open_one() as two:
        async with AsyncExitStack() as stack, asyncio.timeout(_PATIENCE_S):
            rich, poor = (_Process(store, 0.1) for store in (one, two))
            holds = await _shared(stack, one, rich)
            await _shared(stack, two, poor)
            holder = asyncio.create_task(holds.more({"v": 0.1}))
            await holder
            assert rich.dispatcher.state.spend.given_usd("v") > 0.08
            await holds.more({"v": 0.0})
            assert rich.dispatcher.state.spend.given_usd("v") < 0.01
            assert await poor.serve("b")
