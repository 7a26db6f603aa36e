"""Several dispatchers on one store use one endpoint: together they keep to its cap."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import msgspec
import pytest
from tests.runtime.conftest import MODEL, REQUEST, llm_spec, llm_step
from tests.store.conftest import Open

from steelyard.domain.events import PoolAdded
from steelyard.domain.task import LlmCall
from steelyard.fleet.sharing import ReplicaLoad
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmChunk, LlmRequest
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime import load_sharing
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.load_sharing import LoadSharing, known_address, shared_loads
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_store import EventStore

_PLACES = {"http://10.0.0.5/v1": ("llm", 0)}
_PATIENCE_S = 20.0


class SlowPool(ScriptedLlmPool):
    """One endpoint that all dispatchers use: it answers when it is told to, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = 0
        self.go = asyncio.Event()

    async def complete(
        self, request: LlmRequest, replica: int = 0
    ) -> AsyncGenerator[LlmChunk, None]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
            await asyncio.sleep(0.01)
            async for chunk in super().complete(request, replica):
                yield chunk
        finally:
            self.running -= 1


def _dispatcher(store: EventStore, pool: SlowPool, cap: int) -> Dispatcher:
    recorder = Recorder(WallClock(), store)
    recorder.record(PoolAdded(t_s=recorder.now_s(), spec=llm_spec(cap)))
    return Dispatcher(recorder, CheapestFeasible(), {"llm": pool}, {})


async def _serve(dispatcher: Dispatcher, task_id: str) -> None:
    dispatcher.open_task(task_id, "a", None, None)
    async for _ in dispatcher.serve_llm(llm_step(task_id), REQUEST):
        pass


async def _exchange(*loads: LoadSharing) -> None:
    for one in loads:
        await one.exchange()


async def test_two_processes_keep_to_one_cap_and_both_get_on(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may keep a process from its store for longer than its share is kept for it.
    monkeypatch.setattr(load_sharing, "_LEASE_S", 60.0)
    pool = SlowPool()
    with open_one() as one, open_one() as two:
        dispatchers = [_dispatcher(store, pool, 4) for store in (one, two)]
        async with AsyncExitStack() as stack, asyncio.timeout(_PATIENCE_S):
            for store, each in zip((one, two), dispatchers, strict=True):
                shared = shared_loads(store.loads, each, lambda: _PLACES)
                await stack.enter_async_context(shared)
            asked = [
                asyncio.create_task(_serve(each, f"{name}{number}"))
                for number in range(12)
                for name, each in zip("ab", dispatchers, strict=True)
            ]
            # What waits elsewhere is seen here before anything ends.
            while min(_demand(each) for each in dispatchers) < 24:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert pool.running == 4
            pool.go.set()
            await asyncio.gather(*asked)
        assert pool.most == 4


def _demand(dispatcher: Dispatcher) -> float:
    state = dispatcher.state
    return state.running_on("llm", 0) + state.waiting_on("llm", 0)


def _own(dispatcher: Dispatcher) -> float:
    return dispatcher.state.own_load("llm", 0).running


async def test_what_others_do_counts_in_the_view_until_they_are_gone(open_one: Open) -> None:
    pool = SlowPool()
    with open_one() as one, open_one() as two:
        busy, other = (_dispatcher(store, pool, 4) for store in (one, two))
        async with asyncio.timeout(_PATIENCE_S):
            async with shared_loads(two.loads, other, lambda: _PLACES) as looks:
                async with shared_loads(one.loads, busy, lambda: _PLACES) as tells:
                    asked = asyncio.create_task(_serve(busy, "a"))
                    while not pool.running:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    await _exchange(tells, looks)
                    assert other.state.running_on("llm", 0) == 1
                    assert _own(other) == 0
                    view = other.state.view(llm_step("probe"), other.now_s())
                    assert float(view.running.sum()) == 1.0
                    assert float(view.service_sum_s.sum()) > 0.0
                    pool.go.set()
                    await asked
                await _exchange(looks)
                assert other.state.running_on("llm", 0) == 0
                view = other.state.view(llm_step("probe"), other.now_s())
                assert float(view.service_sum_s.sum()) == 0.0


async def test_what_a_replica_caches_for_one_process_is_known_to_the_others(
    open_one: Open,
) -> None:
    pool = SlowPool()
    pool.go.set()
    with open_one() as one, open_one() as two:
        serves, other = (_dispatcher(store, pool, 4) for store in (one, two))
        call = LlmCall(
            model=MODEL,
            input_tokens=50,
            max_output_tokens=16,
            prefix_hashes=(11, 2**62 + 1),
            prefix_tokens=(20, 45),
        )
        step = msgspec.structs.replace(llm_step("a"), call=call)
        async with (
            asyncio.timeout(_PATIENCE_S),
            shared_loads(one.loads, serves, lambda: _PLACES) as tells,
            shared_loads(two.loads, other, lambda: _PLACES) as hears,
        ):
            serves.open_task("a", "a", None, None)
            async for _ in serves.serve_llm(step, REQUEST):
                pass
            await _exchange(tells, hears)
            longer = msgspec.structs.replace(
                call, prefix_hashes=(*call.prefix_hashes, 7), prefix_tokens=(20, 45, 49)
            )
            assert other.state.cached_tokens_on("llm", 0, longer) == 45


async def test_alone_a_process_may_use_all_of_its_cap_and_waits_for_nobody(open_one: Open) -> None:
    pool = SlowPool()
    with open_one() as store:
        dispatcher = _dispatcher(store, pool, 4)
        async with shared_loads(store.loads, dispatcher, lambda: _PLACES):
            assert dispatcher.state.has_room("llm", 0, 4)
            assert dispatcher.state.own_load("llm", 0) == ReplicaLoad()


def test_an_address_of_one_machine_is_not_another_machines() -> None:
    assert known_address("http://127.0.0.1:8000/v1").endswith(" http://localhost:8000/v1")
    assert known_address("http://127.0.0.2:8000/v1").endswith(" http://127.0.0.2:8000/v1")
    assert known_address("http://[::1]:80/v1") == known_address("http://LocalHost/v1")
    assert known_address("https://api.example.com/v1") == "https://api.example.com/v1"
    assert known_address("http://127.example.com/v1") == "http://127.example.com/v1"


@pytest.mark.parametrize(
    "other", ["HTTP://gpu-5/v1", "http://GPU-5/v1/", "http://gpu-5:80/v1", "http://Gpu-5:80/v1//"]
)
def test_an_endpoint_has_one_address_however_it_is_written(other: str) -> None:
    assert known_address(other) == known_address("http://gpu-5/v1")
    assert known_address("http://gpu-5:8000/v1") != known_address("http://gpu-5/v1")
    assert known_address("http://gpu-5/V1") != known_address("http://gpu-5/v1")
    assert known_address("http://[FD00::5]:8000/v1/") == "http://[fd00::5]:8000/v1"
