"""Limits of steps that hold over all processes of one store: at once, and starts in a time."""

import asyncio
import contextlib
import heapq
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from steelyard.domain.decision import Decision
from steelyard.domain.pool import PoolLimit
from steelyard.domain.task import Step
from steelyard.errors import StoreError

# How soon a place that another process gave back is seen here.
_LOOK_S = 0.1
# Places of a process that died are free after this time.
_LEASE_S = 10.0
# So many are asked for at once.
_MAX_ASKED = 64
# A step without a deadline waits as if it were due this long after it came, see `StepQueue`.
_PATIENCE_S = 60.0


class Places(Protocol):
    """Where places are counted; `steelyard.store.event_store.EventStore` is one."""

    def take_places(
        self, owner: str, asked: tuple[str, list[str]], limit: PoolLimit, lease_s: float
    ) -> "Future[list[str]]":
        """Which of the wanted places in a pool may a process have?"""
        ...

    def renew_places(self, owner: str, lease_s: float) -> "Future[None]":
        """Keep a process's places for so many seconds more."""
        ...

    def free_place(self, pool: str, name: str) -> "Future[None]":
        """Give a place back."""
        ...


_Attempt = tuple[str, str, int, int]


class _Waiter(NamedTuple):
    latest_start_s: float
    number: int
    name: str
    attempt: _Attempt
    may_enter: "asyncio.Future[None]"


class PoolLimits:
    """Lets steps into limited pools, least slack first; what has no limit costs nothing.

    A place is a row of the store with a lease. The policy does not know of these limits: what
    waits here waits longer than predicted.

    Args:
        places: Where places are counted; None where there is no limit.
        limits: By pool, or by `agent_gate` for the steps of an agent in all pools.

    Attributes:
        any: Whether there are limits at all; one that a change took away is none.
    """

    def __init__(self, places: Places | None, limits: Mapping[str, PoolLimit]) -> None:
        self._places = places
        self._limits = dict(limits) if places is not None else {}
        self.any = _are_any(self._limits)
        self._owner = f"places-{uuid.uuid4().hex}"
        self._waiting: dict[str, list[_Waiter]] = {pool: [] for pool in self._limits}
        self._came = 0
        self._held: dict[_Attempt, tuple[str, str]] = {}
        self._changed = asyncio.Event()
        self._loops: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def none(cls) -> "PoolLimits":
        """No limits."""
        return cls(None, {})

    def change(self, limits: Mapping[str, PoolLimit]) -> None:
        """From now on these limits hold; who waits at one that is gone may enter."""
        gone = {gate: PoolLimit() for gate in self._limits if gate not in limits}
        self._limits = {**gone, **limits}
        self.any = _are_any(self._limits)
        for gate in limits:
            self._waiting.setdefault(gate, [])
        self._changed.set()

    async def enter(self, step: Step, decision: Decision, now_s: float) -> None:
        """Wait until the step may run: first for its agent's rate, then for its pool.

        Args:
            step: The step.
            decision: Where it was placed.
            now_s: Time on the log's clock.

        Raises:
            StoreError: The store is broken.
        """
        if self._places is None or not self._limits:
            return
        for gate in _gates(step, decision):
            if _is_limit(self._limits.get(gate, PoolLimit())):
                await self._enter(self._places, gate, step, decision, now_s)

    async def _enter(
        self, places: Places, pool: str, step: Step, decision: Decision, now_s: float
    ) -> None:
        slack_s = _PATIENCE_S if decision.slack_at_start_s is None else decision.slack_at_start_s
        may_enter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._came += 1
        # Drawn anew: two processes, or two tries of one, may know a step by the same number.
        name = f"{self._owner}-{self._came}"
        waiter = _Waiter(now_s + slack_s, self._came, name, _attempt(pool, step), may_enter)
        heapq.heappush(self._waiting[pool], waiter)
        self._ensure(pool, self._let_in(places, pool))
        # A waiter that is cancelled has its future cancelled, and is passed over.
        await may_enter

    def leave(self, step: Step, decision: Decision) -> None:
        """The step is over: its places are free."""
        for gate in _gates(step, decision):
            place = self._held.pop(_attempt(gate, step), None)
            if self._places is not None and place is not None:
                self._places.free_place(*place)
                self._changed.set()

    async def _let_in(self, places: Places, pool: str) -> None:
        """Ask for places as long as somebody waits for one."""
        while self._prune(pool):
            self._changed.clear()
            wanted = heapq.nsmallest(_MAX_ASKED, self._waiting[pool])
            names = [one.name for one in wanted]
            try:
                given = await asyncio.wrap_future(
                    places.take_places(self._owner, (pool, names), self._limits[pool], _LEASE_S)
                )
            except StoreError as error:
                for one in self._waiting[pool]:
                    if not one.may_enter.done():
                        one.may_enter.set_exception(error)
                return
            for one in wanted:
                if one.name in given:
                    self._give(places, pool, one)
            if len(given) < len(names):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._changed.wait()

    def _prune(self, pool: str) -> bool:
        """Forget who was let in or gave up; does anybody wait?"""
        self._waiting[pool] = [one for one in self._waiting[pool] if not one.may_enter.done()]
        heapq.heapify(self._waiting[pool])
        return bool(self._waiting[pool])

    def _give(self, places: Places, pool: str, waiter: _Waiter) -> None:
        if waiter.may_enter.done():
            # It gave up while the store was asked.
            places.free_place(pool, waiter.name)
            return
        self._held[waiter.attempt] = (pool, waiter.name)
        waiter.may_enter.set_result(None)
        self._ensure("", self._renew(places))

    async def _renew(self, places: Places) -> None:
        while self._held:
            await asyncio.sleep(_LEASE_S / 4.0)
            try:
                await asyncio.wrap_future(places.renew_places(self._owner, _LEASE_S))
            except StoreError:
                # Everything else that needs the store fails with it.
                return

    def _ensure(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run a loop, unless it runs."""
        running = self._loops.get(name)
        if running is not None and not running.done():
            loop.close()
            return
        self._loops[name] = asyncio.create_task(loop)


def agent_gate(agent: str) -> str:
    """Under which name are the steps of an agent limited? No pool of a file is called so."""
    return f"agent/{agent}"


def _are_any(limits: Mapping[str, PoolLimit]) -> bool:
    return any(_is_limit(limit) for limit in limits.values())


def _is_limit(limit: PoolLimit) -> bool:
    return limit.max_running is not None or limit.starts is not None


def _gates(step: Step, decision: Decision) -> tuple[str, str]:
    return agent_gate(step.agent), decision.pool


def _attempt(pool: str, step: Step) -> _Attempt:
    return (pool, step.task_id, step.step_id, step.attempt)
