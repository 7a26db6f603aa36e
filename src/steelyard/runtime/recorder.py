"""One door for everything that happens: fleet state, log and listeners see the same events."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from steelyard.domain.clock import Clock
from steelyard.domain.events import (
    AttemptFinished,
    Event,
    RequestServed,
    StepRecorded,
    StepWaiting,
    TaskSubmitted,
)
from steelyard.errors import LeaseLostError
from steelyard.fleet.accounts import OpenAttempt
from steelyard.fleet.state import FleetState
from steelyard.store.event_log import EventLog

# Told that everything is on disk, or why it will not be.
Durable = Callable[[BaseException | None], None]


class Recorder:
    """Applies every event to the fleet state and appends it to the log, in the same order.

    Args:
        clock: The log's clock.
        log: Where events are kept.

    Attributes:
        state: The fold of all events.
        log: Where they are kept.
        now_s: What time is it on the log's clock?
    """

    def __init__(self, clock: Clock, log: EventLog) -> None:
        self.state = FleetState()
        self.log = log
        self.now_s: Callable[[], float] = clock.now_s
        self._listeners: list[Callable[[Event], None]] = []
        self._waiting: list[Durable] = []
        self._asks = False

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every later event, after the state has taken it."""
        self._listeners.append(listener)

    def record(self, event: Event, fence: int | None = None) -> None:
        """Make an event part of the log and of the state.

        Args:
            event: What happened.
            fence: Number of the lease under which it happened; None outside of durable tasks.

        Raises:
            StoreError: The log cannot take it; the state is then unchanged.
        """
        self.log.append(event, fence)
        self.state.apply(event)
        for listener in self._listeners:
            listener(event)

    def record_served(self, event: RequestServed, attempt: OpenAttempt) -> None:
        """Make the end of a request that the state knows already a part of both.

        Args:
            event: The request, whole.
            attempt: What `FleetState.begin` gave.

        Raises:
            StoreError: The log cannot take it; the state takes it nevertheless, since the request
                has ended.
        """
        try:
            self.log.append(event)
        finally:
            self.state.end(attempt, event)
        for listener in self._listeners:
            listener(event)

    def note(self, event: Event) -> None:
        """Log an event that the state knows already, and tell the listeners."""
        self.log.append(event)
        for listener in self._listeners:
            listener(event)

    def restore(self, events: Iterable[Event]) -> None:
        """Bring the books of a task up to date that another process has begun.

        Args:
            events: Its journal; what it has spent counts, its placements elsewhere do not.
        """
        for event in events:
            if isinstance(event, TaskSubmitted | AttemptFinished | StepWaiting | StepRecorded):
                self.state.apply(event)

    async def durable(self, task_id: str = "", fence: int | None = None) -> None:
        """Wait until everything recorded so far is on disk.

        All who ask in one turn of the event loop share one question to the log.

        Args:
            task_id: Whose events the caller cares for.
            fence: Number of the lease under which they were recorded; None for no lease.

        Raises:
            LeaseLostError: Another worker has the task; those events were dropped.
            StoreError: The log is broken.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_durable(partial(_settle, waiter))
        await waiter
        if fence is not None and self.log.is_lost(task_id, fence):
            raise LeaseLostError(
                f"task {task_id} is another worker's now (this one had lease {fence}); what it "
                "did since is not recorded"
            )

    def when_durable(self, tell: Durable) -> None:
        """Call back when everything recorded so far is on disk, with the error if it never will.

        Args:
            tell: Called once, in this thread, with None when all is well.
        """
        self._waiting.append(tell)
        # Who comes while the log is asked waits for its next commit, and shares the next question.
        if not self._asks:
            self._asks = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._ask, loop)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []

        def committed(done: "Future[None]") -> None:
            # A loop that is closed by now has nobody waiting in it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake, waiting, done, loop)

        self.log.durable().add_done_callback(committed)

    def _wake(
        self, waiting: list[Durable], done: "Future[None]", loop: asyncio.AbstractEventLoop
    ) -> None:
        self._asks = bool(self._waiting)
        if self._asks:
            self._ask(loop)
        error = done.exception()
        for tell in waiting:
            tell(error)


def _settle(waiter: asyncio.Future[None], error: BaseException | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
