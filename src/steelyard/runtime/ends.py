"""Waiting for the ends of tasks, whoever runs them."""

import asyncio
from collections.abc import Callable

from steelyard.domain.events import TaskFinished
from steelyard.errors import StoreError, TaskNotFoundError
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.journal import Journal
from steelyard.store.event_store import EventStore
from steelyard.store.tasks import ENDED, TaskState

# So many tasks are looked after as often as one: what ends here is told without a look.
_LOOKED_AFTER = 100


class Ends:
    """Tells whoever waits for a task's end: those of this worker at once, others by looking.

    Args:
        store: Where tasks are.
        dispatcher: Reads journals.
        look_s: Seconds between looks, while few tasks are waited for.
        runs_here: Whether this worker holds a task.
    """

    def __init__(
        self,
        store: EventStore,
        dispatcher: Dispatcher,
        look_s: float,
        runs_here: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._look_s = look_s
        self._runs_here = runs_here
        self._waiters: dict[str, list[asyncio.Future[TaskFinished]]] = {}
        # Why the worker gave up; it runs nothing any more.
        self.failure: StoreError | None = None

    def tell(self, task_id: str, finished: TaskFinished) -> None:
        """A task of this worker has ended; on disk by now."""
        for waiter in self._waiters.get(task_id, []):
            if not waiter.done():
                waiter.set_result(finished)

    async def wait(self, task_id: str, told: Callable[[TaskState], None]) -> TaskFinished:
        """Wait for a task's end; see `Worker.result`."""
        ended: asyncio.Future[TaskFinished] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(task_id, [])
        waiters.append(ended)
        try:
            while not ended.done():
                if self.failure is not None:
                    raise self.failure
                found = "running" if self._runs_here(task_id) else await self._finished(task_id)
                if isinstance(found, TaskFinished):
                    return found
                told(found)
                many = max(1.0, len(self._waiters) / _LOOKED_AFTER)
                await asyncio.wait([ended], timeout=self._look_s * many)
            return ended.result()
        finally:
            waiters.remove(ended)
            if not waiters:
                self._waiters.pop(task_id, None)

    async def _finished(self, task_id: str) -> TaskFinished | TaskState:
        """The end of a task, or its state."""
        rows = await asyncio.wrap_future(self._store.tasks(task_id=task_id))
        if not rows:
            raise TaskNotFoundError(f"task {task_id} is not in {self._store.where}")
        if rows[0].state not in ENDED:
            return rows[0].state
        finished = Journal.of(await self._dispatcher.journal(task_id)).finished
        # Begun anew between the two questions.
        return "queued" if finished is None else finished
