"""Group commit: one thread, one connection, one transaction for all that came in meanwhile."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

from steelyard.domain.events import RequestServed
from steelyard.errors import StoreBusyError, StoreError
from steelyard.store import waiting_sql
from steelyard.store.backend import Backend, EventRow

A = TypeVar("A")
R = TypeVar("R")

# A database that is away for longer takes its log down with it. Nothing is lost before, and most
# fail over or start again within a few minutes.
_AWAY_LIMIT_S = 600.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
# Rows that nobody waits for are on disk after this time at the latest.
_LINGER_S = 0.01
# Where a group had so many rows, the next one waits so long for more. A request has five rows, or
# one that counts as five.
_BUSY_ROWS = 20
_REQUEST_ROWS = 5
_WHOLE_REQUEST = str(RequestServed.__struct_config__.tag)
_BUSY_LINGER_S = 0.001


class _Call(NamedTuple):
    """A call in a transaction, or a question outside of any."""

    run: Callable[[Backend], Any]
    future: Future[Any]
    reads: bool


class _Piece(NamedTuple):
    """An argument of a call that is made once for all that came in."""

    run: Callable[[Backend, list[Any]], list[Any]]
    argument: Any
    future: Future[Any]


_Item = EventRow | _Call | _Piece


class GroupWriter:
    """Writes rows and runs calls in order, as many per transaction as have come in.

    A transaction that finds the database away is rolled back and run again, as a whole; the
    backend tells by the numbers of `write` whether its rows had been committed after all, and
    calls find what they did.

    Args:
        backend: The connection; this object's alone from now on.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._number = 0
        # Appended to without the lock, which the writer holds while it waits for the interpreter.
        self._queue: deque[_Item] = deque()
        self._calls = 0
        self._waiters: list[Future[None]] = []
        self._last_rows = 0
        self._is_busy = False
        self._lost: set[tuple[str, int]] = set()
        self._failure: StoreError | None = None
        self._away_since_s: float | None = None
        # Done when nothing can be written any more; nobody else may settle it.
        self.broken: Future[StoreError] = Future()
        self.broken.set_running_or_notify_cancel()
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def write(self, row: EventRow) -> None:
        """Queue a row.

        Raises:
            StoreError: An earlier commit failed, or the log is closed.
        """
        self._check_open()
        was_empty = not self._queue
        self._queue.append(row)
        if was_empty:
            with self._changed:
                self._changed.notify()

    def call(self, call: Callable[[Backend], R]) -> "Future[R]":
        """Queue a call.

        Args:
            call: Runs inside a transaction, maybe more than once when the database was away.

        Returns:
            Its result, once committed.
        """
        future: Future[R] = Future()
        return self._enqueue(_Call(call, future, reads=False), future)

    def read(self, question: Callable[[Backend], R]) -> "Future[R]":
        """Queue a question, answered outside of transactions.

        Args:
            question: Changes nothing. It sees all that was queued before, maybe more.

        Returns:
            Its answer.
        """
        future: Future[R] = Future()
        return self._enqueue(_Call(question, future, reads=True), future)

    def call_for_all(self, call: Callable[[Backend, list[A]], list[R]], argument: A) -> "Future[R]":
        """Queue an argument of a call that is made once per transaction, before all else in it.

        Args:
            call: Takes all arguments that came in and returns a result for each. It runs maybe
                more than once when the database was away, and writes in one piece: alone in its
                group, it is given no transaction.
            argument: One of them.

        Returns:
            Its result, once committed.
        """
        future: Future[R] = Future()
        return self._enqueue(_Piece(call, argument, future), future)

    def _enqueue(self, item: _Call | _Piece, future: "Future[R]") -> "Future[R]":
        # Whoever waits may give up (asyncio.wrap_future cancels what it wraps); the writer's
        # thread must not trip over that.
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._failure is not None or self._closing:
                future.set_exception(self._failure or self._closed())
            else:
                self._queue.append(item)
                self._calls += 1
                self._changed.notify()
        return future

    def durable(self) -> Future[None]:
        """When is everything queued so far on disk?"""
        waiter: Future[None] = Future()
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

    @property
    def away_s(self) -> float:
        """For how many seconds has the database been away? 0 while it answers."""
        since_s = self._away_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

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
            few_yet = 2 * len(self._queue) < self._last_rows
            if self._is_busy and few_yet and not self._hurried():
                # Busy: a commit costs as much CPU for one waiter as for fifty, and others are
                # about to come. Where they are here already, as tasks that were all woken by the
                # last commit, nobody is kept waiting.
                self._changed.wait_for(self._hurried, timeout=_BUSY_LINGER_S)
            queue = [self._queue.popleft() for _ in range(len(self._queue))]
            self._calls = 0
            waiters, self._waiters = self._waiters, []
            self._last_rows = len(queue)
            self._is_busy = _requests(queue) * _REQUEST_ROWS >= _BUSY_ROWS
            if not queue and not waiters:
                return not self._closing
        group = _Group(queue)
        answers: list[Any] = []
        try:
            if group.writes:
                answers = self._surely(partial(self._commit, group))
            for future, answer in zip(group.futures, answers, strict=True):
                future.set_result(answer)
            for waiter in waiters:
                waiter.set_result(None)
            waiters = []
            for question in group.questions:
                question.future.set_result(self._surely(partial(question.run, self._backend)))
        except StoreError as error:
            self._fail(error, queue, waiters)
            return False
        except BaseException as error:
            # A bug of ours; without this, everybody would wait for a thread that is no more.
            told = f"event log {self._backend.where} broke off: {type(error).__name__}: {error}"
            self._fail(StoreError(f"{told}; start again, and report this"), queue, waiters)
            raise
        return True

    def _urgent(self) -> bool:
        return bool(self._waiters or self._calls or self._closing)

    def _hurried(self) -> bool:
        return bool(self._calls or self._closing)

    def _surely(self, work: Callable[[], R]) -> R:
        """Do work at the database, and wait for one that is away."""
        gives_up_s = time.monotonic() + _AWAY_LIMIT_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                done = work()
                self._away_since_s = None
            except StoreBusyError as error:
                if self._away_since_s is None:
                    self._away_since_s = time.monotonic()
                if time.monotonic() > gives_up_s:
                    raise StoreError(
                        f"event log {self._backend.where} has been away for {_AWAY_LIMIT_S:g} s "
                        f"({error}); start again when it is back"
                    ) from error
                time.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2.0 * pause_s)
                self._roll_back()
            else:
                return done

    def _roll_back(self) -> None:
        try:
            self._backend.rollback()
        except StoreBusyError:
            # The next `begin` says so again, and is tried again.
            return

    def _commit(self, group: "_Group") -> list[Any]:
        """Write a group in one transaction; the results in the order of the group's futures."""
        backend = self._backend
        # One piece is a transaction by itself, and saves a database on a network two round trips.
        # The end of a child is seen by its parent in a second statement of the same transaction.
        apart = len(group.pieces) + len(group.parts) > 1 or any(
            not isinstance(part, list) or waiting_sql.ended_children(part) for part in group.parts
        )
        if apart:
            backend.begin()
        results: list[Any] = []
        lost: set[tuple[str, int]] = set()
        for run, arguments in group.pieces.items():
            results += run(backend, arguments)
        number = self._number
        for part in group.parts:
            if isinstance(part, list):
                number += 1
                lost |= backend.write(part, number)
                waiting_sql.wake_parents(backend, waiting_sql.ended_children(part))
            else:
                results.append(part.run(backend))
        if apart:
            backend.commit()
        self._number = number
        self._lost |= lost
        return results

    def _fail(
        self,
        error: StoreError,
        queue: list[_Item],
        waiters: list[Future[None]],
    ) -> None:
        """No later event may be committed when an earlier one is lost: the log stops here."""
        with self._changed:
            self._failure = error
            waiters += self._waiters
            queue += self._queue
            self._waiters = []
            self._queue.clear()
        self.broken.set_result(error)
        for item in queue:
            if not isinstance(item, EventRow) and not item.future.done():
                item.future.set_exception(error)
        for waiter in waiters:
            waiter.set_exception(error)


def _requests(queue: list[_Item]) -> float:
    """For how many requests are there rows?"""
    whole = sum(1 for one in queue if isinstance(one, EventRow) and one.kind == _WHOLE_REQUEST)
    return whole + (len(queue) - whole) / _REQUEST_ROWS


class _Group:
    """What came in meanwhile, in the order in which it is done.

    Args:
        queue: What came in.
    """

    def __init__(self, queue: list[_Item]) -> None:
        self.pieces: dict[Callable[[Backend, list[Any]], list[Any]], list[Any]] = {}
        self.parts: list[list[EventRow] | _Call] = []
        self.questions: list[_Call] = []
        futures: dict[Callable[[Backend, list[Any]], list[Any]], list[Future[Any]]] = {}
        for item in queue:
            if isinstance(item, _Piece):
                self.pieces.setdefault(item.run, []).append(item.argument)
                futures.setdefault(item.run, []).append(item.future)
            elif isinstance(item, EventRow):
                last = self.parts[-1] if self.parts else None
                if isinstance(last, list):
                    last.append(item)
                else:
                    self.parts.append([item])
            elif item.reads:
                self.questions.append(item)
            else:
                self.parts.append(item)
        called = [part.future for part in self.parts if isinstance(part, _Call)]
        self.futures = [one for many in futures.values() for one in many] + called

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.pieces or self.parts)
