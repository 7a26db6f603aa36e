"""Group commit: one thread, one connection, one transaction for all that came in meanwhile."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from steelyard.domain.events import SignalSent
from steelyard.errors import StoreBusyError, StoreError
from steelyard.store.backend import Backend, EventRow

R = TypeVar("R")

# A database that is away for longer takes its log down with it.
_AWAY_LIMIT_S = 60.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# Rows that nobody waits for are on disk after this time at the latest.
_LINGER_S = 0.01
# Where a group had so many rows (a request has five), the next one waits so long for more.
_BUSY_ROWS = 20
_BUSY_LINGER_S = 0.001

_SIGNAL = str(SignalSent.__struct_config__.tag)

Call = Callable[[Backend], Any]


class GroupWriter:
    """Writes rows and runs calls in order, as many per transaction as have come in.

    A transaction that finds the database away is rolled back and run again, as a whole; `guard`
    tells whether it had been committed after all.

    Args:
        backend: The connection; this object's alone from now on.
        guard: Called in every transaction with the group's number. Returns True when that group
            is in the database already.
    """

    def __init__(self, backend: Backend, guard: Callable[[Backend, int], bool]) -> None:
        self._backend = backend
        self._guard = guard
        self._group = 0
        self._queue: list[EventRow | tuple[Call, Future[Any]]] = []
        self._calls = 0
        self._waiters: list[Future[None]] = []
        self._last_rows = 0
        self._lost: set[tuple[str, int]] = set()
        self._failure: StoreError | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def write(self, row: EventRow) -> None:
        """Queue a row.

        Raises:
            StoreError: An earlier commit failed, or the log is closed.
        """
        with self._changed:
            self._check_open()
            if not self._queue:
                self._changed.notify()
            self._queue.append(row)

    def call(self, call: Callable[[Backend], R]) -> "Future[R]":
        """Queue a call.

        Args:
            call: Runs inside a transaction, maybe more than once when the database was away.

        Returns:
            Its result, once committed.
        """
        future: Future[R] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._failure is not None or self._closing:
                future.set_exception(self._failure or self._closed())
            else:
                self._queue.append((call, future))
                self._calls += 1
                self._changed.notify()
        return future

    def durable(self) -> Future[None]:
        """When is everything queued so far on disk?"""
        waiter: Future[None] = Future()
        # Whoever waits may give up (asyncio.wrap_future cancels what it wraps); the writer's
        # thread must not trip over that.
        waiter.set_running_or_notify_cancel()
        with self._changed:
            if self._failure is not None or self._closing:
                waiter.set_exception(self._failure or self._closed())
            else:
                self._waiters.append(waiter)
                # While it lingers for others, one more is no reason to wake up.
                if len(self._waiters) == 1:
                    self._changed.notify()
        return waiter

    def is_lost(self, task_id: str, fence: int) -> bool:
        """Was a row dropped because its task has a newer lease?"""
        return (task_id, fence) in self._lost

    def close(self) -> None:
        """Commit what is left and close the connection. Closing twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _closed(self) -> StoreError:
        return StoreError(f"event log {self._backend.where} is closed")

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise self._closed()

    def _run(self) -> None:
        try:
            while self._next_group():
                pass
        finally:
            self._backend.close()

    def _next_group(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._urgent())
            # Rows alone linger: whoever needs them on disk will say so, with more rows maybe.
            self._changed.wait_for(self._urgent, timeout=_LINGER_S)
            if self._last_rows >= _BUSY_ROWS and not self._calls and not self._closing:
                # Busy: a commit costs as much CPU for one waiter as for fifty, and others are
                # about to come. When few come, nobody is kept waiting.
                self._changed.wait_for(self._hurried, timeout=_BUSY_LINGER_S)
            queue, self._queue = self._queue, []
            self._calls = 0
            waiters, self._waiters = self._waiters, []
            self._last_rows = len(queue)
            if not queue and not waiters:
                return not self._closing
        results: list[Any] = []
        try:
            if queue:
                results = self._commit_surely(queue)
        except StoreError as error:
            self._fail(error, queue, waiters)
            return False
        futures = [item[1] for item in queue if not isinstance(item, EventRow)]
        for future, result in zip(futures, results, strict=True):
            future.set_result(result)
        for waiter in waiters:
            waiter.set_result(None)
        return True

    def _urgent(self) -> bool:
        return bool(self._waiters or self._calls or self._closing)

    def _hurried(self) -> bool:
        return bool(self._calls or self._closing)

    def _commit_surely(self, queue: list[EventRow | tuple[Call, Future[Any]]]) -> list[Any]:
        """Commit a group, and wait for a database that is away."""
        self._group += 1
        gives_up_s = time.monotonic() + _AWAY_LIMIT_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._commit(queue)
            except StoreBusyError as error:
                if time.monotonic() > gives_up_s:
                    raise StoreError(
                        f"event log {self._backend.where} has been away for {_AWAY_LIMIT_S:g} s "
                        f"({error}); start again when it is back"
                    ) from error
                time.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2.0 * pause_s)
                self._roll_back()

    def _roll_back(self) -> None:
        try:
            self._backend.rollback()
        except StoreBusyError:
            # The next `begin` says so again, and is tried again.
            return

    def _commit(self, queue: list[EventRow | tuple[Call, Future[Any]]]) -> list[Any]:
        backend = self._backend
        backend.begin()
        # Calls are run again even when their group is known to be in: they find what they did.
        done = self._guard(backend, self._group)
        results: list[Any] = []
        rows: list[EventRow] = []
        for item in queue:
            if isinstance(item, EventRow):
                if not done:
                    rows.append(item)
                continue
            self._insert(rows)
            rows = []
            results.append(item[0](backend))
        self._insert(rows)
        backend.commit()
        return results

    def _insert(self, rows: list[EventRow]) -> None:
        if not rows:
            return
        backend = self._backend
        held = {row.task_id for row in rows if row.fence is not None and row.task_id is not None}
        if held:
            fences = backend.fences(sorted(held))
            kept: list[EventRow] = []
            for row in rows:
                if row.fence is None or fences.get(row.task_id or "") == row.fence:
                    kept.append(row)
                else:
                    self._lost.add((row.task_id or "", row.fence))
            rows = kept
        backend.insert_events(rows)
        ended: dict[str, list[str]] = {}
        for row in rows:
            if row.ended is not None:
                ended.setdefault(row.ended, []).append(row.task_id or "")
            elif row.kind == _SIGNAL:
                backend.execute(
                    "UPDATE tasks SET signals = signals + 1 WHERE task_id = ?", (row.task_id,)
                )
        for state, task_ids in sorted(ended.items()):
            backend.end_tasks(state, task_ids)

    def _fail(
        self,
        error: StoreError,
        queue: list[EventRow | tuple[Call, Future[Any]]],
        waiters: list[Future[None]],
    ) -> None:
        """No later event may be committed when an earlier one is lost: the log stops here."""
        with self._changed:
            self._failure = error
            waiters += self._waiters
            queue += self._queue
            self._waiters, self._queue = [], []
        for item in queue:
            if not isinstance(item, EventRow):
                item[1].set_exception(error)
        for waiter in waiters:
            waiter.set_exception(error)
