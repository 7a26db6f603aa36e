"""Event log and task store in one: what every backend's database is asked, in one place."""

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar, get_args

import msgspec

from steelyard.domain.events import (
    AttemptFinished,
    Event,
    RequestServed,
    SignalSent,
    TaskFinished,
    TaskRetried,
    TaskSubmitted,
    parts,
)
from steelyard.domain.pool import PoolLimit
from steelyard.errors import ConfigError, SchemaMismatchError, StoreError
from steelyard.store import place_sql, task_sql, waiting_sql
from steelyard.store.backend import SCHEMA_VERSION, Backend, EventRow, TaskToAdd
from steelyard.store.event_log import task_of
from steelyard.store.group_writer import GroupWriter
from steelyard.store.keys import KeyStore
from steelyard.store.loads import LoadStore
from steelyard.store.older_versions import as_version
from steelyard.store.provider_spend import SpendStore
from steelyard.store.tasks import Claim, HeldTask, Lease, Parking, Submission, TaskRow

A = TypeVar("A")
B = TypeVar("B")

_PAGE = 10_000
# Of 32 bits in PostgreSQL.
_MAX_PRIORITY = 2**31 - 1
# No text of PostgreSQL holds the first, no UTF-8 the others. A statement that fails takes the whole
# log down with it, so these stay outside.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

_TAGS = {kind: str(kind.__struct_config__.tag) for kind in get_args(Event)}
_WHOLE = _TAGS[RequestServed]
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class EventStore:
    """Appends events and hands out tasks; a thread of its own commits both in groups.

    `append` never waits for the disk. `durable` answers when everything appended so far is on
    disk: whoever acknowledges work waits for it first. Everything about a task that must agree
    with its events (its lease, its state) changes in the transaction of those events.

    A log of an older `version` keeps it until `upgrade`: what is appended is written so that
    processes of that version can read it.

    Ids, keys and names of agents with NUL or half a surrogate pair in them are refused with
    ConfigError, whatever the backend.

    Args:
        backend: The database; this object's alone from now on.
    """

    def __init__(self, backend: Backend) -> None:
        self.where = backend.where
        self.version = backend.version
        self._writer = GroupWriter(backend)
        self.keys = KeyStore(self._writer)
        self.loads = LoadStore(self._writer)
        self.spend = SpendStore(self._writer)

    def append(self, event: Event, fence: int | None = None) -> None:
        """Take one more event; see `EventLog`.

        Raises:
            ConfigError: The task's id cannot be stored.
            StoreError: An earlier commit failed, or the log is closed.
        """
        if self.version == SCHEMA_VERSION:
            self._writer.write(event_row(event, fence))
            return
        for told in as_version(event, self.version):
            self._writer.write(event_row(told, fence))

    def upgrade(self) -> None:
        """Make the log one of this version; processes of older ones refuse it from then on.

        Raises:
            StoreError: The log cannot be written.
        """
        self._writer.call(lambda backend: backend.upgrade()).result()
        self.version = SCHEMA_VERSION

    def durable(self) -> Future[None]:
        """When is everything appended so far on disk?

        Returns:
            A future that is done then; it fails with StoreError when the commit fails.
        """
        return self._writer.durable()

    @property
    def away_s(self) -> float:
        """For how many seconds has the database been away? 0 while it answers."""
        return self._writer.away_s

    @property
    def broken(self) -> "Future[StoreError]":
        """Done, with the reason, when nothing can be written any more; do not cancel it."""
        return self._writer.broken

    def is_lost(self, task_id: str, fence: int) -> bool:
        """Was an event dropped because another worker holds the task?"""
        return self._writer.is_lost(task_id, fence)

    def journal(self, task_id: str) -> "Future[tuple[Event, ...]]":
        """Which events has a task, in order?"""
        _check_text("task id", task_id)
        return self._decoded(lambda backend: task_sql.bodies(backend, task_id))

    def journal_after(self, task_id: str, after: int) -> "Future[tuple[int, tuple[Event, ...]]]":
        """Which events has a task beyond a number of the log?

        Args:
            task_id: The task.
            after: A number of the log; 0 for the beginning.

        Returns:
            The number to ask with next, and the events in order.
        """
        _check_text("task id", task_id)
        read = self._writer.read(
            lambda backend: task_sql.task_bodies_after(backend, task_id, after)
        )
        return _mapped(
            read,
            lambda rows: (
                rows[-1][0] if rows else after,
                decode_events([body for _, body in rows]),
            ),
        )

    # ------------------------------------------------------------------ tasks

    def submit(self, submission: Submission) -> "Future[Lease | None]":
        """Put a task into the store.

        Args:
            submission: The task. One with its id or its key that is there already stays.

        Returns:
            A lease when the submission's worker got one; None otherwise.

        Raises:
            ConfigError: Its id, key, agent or priority cannot be stored.
        """
        event = submission.event
        for what, text in (("agent", event.agent), ("key", submission.key)):
            _check_text(what, text)
        if abs(submission.priority) > _MAX_PRIORITY:
            raise ConfigError(
                f"priority {submission.priority} of task {event.task_id} does not fit; "
                f"it must be within +-{_MAX_PRIORITY}"
            )
        task = TaskToAdd(
            task_id=event.task_id,
            agent=event.agent,
            priority=submission.priority,
            submitted_s=event.t_s,
            parent=event.parent,
            key=submission.key,
            worker=submission.worker,
            lease_s=submission.lease_s,
            row=event_row(event, None),
        )
        leased = self._writer.call_for_all(task_sql.submit, task)
        return _mapped(leased, lambda has_it: _first_lease(event) if has_it else None)

    def task_with_key(self, key: str) -> "Future[str | None]":
        """Which task was submitted with this key? None when none was."""
        _check_text("key", key)
        return self._writer.read(lambda backend: task_sql.task_with_key(backend, key))

    def claim(self, claim: Claim) -> "Future[list[Lease]]":
        """Take tasks: queued ones, and those whose worker let its lease run out.

        Args:
            claim: For whom, which, how many.

        Returns:
            The leases, with the tasks' journals.
        """
        taken = self._writer.call(lambda backend: task_sql.claim(backend, claim))
        return _mapped(taken, lambda found: [_lease(*one) for one in found])

    def renew(self, worker: str, lease_s: float) -> "Future[list[HeldTask]]":
        """Which tasks does a worker hold, and are they wanted to end?

        Args:
            worker: Its name.
            lease_s: From now on it holds them for so many seconds; 0 leaves the leases alone.
        """
        if lease_s == 0.0:
            return self._writer.read(lambda backend: task_sql.held(backend, worker))
        return self._writer.call(lambda backend: task_sql.renew(backend, worker, lease_s))

    def release(self, task_id: str, fence: int) -> "Future[None]":
        """Give a task back, so that the next free worker takes it."""
        return self._writer.call(lambda backend: task_sql.release(backend, task_id, fence))

    def retry(self, event: TaskRetried) -> "Future[bool]":
        """Open an ended task again.

        Returns:
            Whether it had ended; one that is open stays as it is.
        """
        row = event_row(event, None)
        return self._writer.call(lambda backend: task_sql.retry(backend, row))

    def park(self, parking: Parking) -> "Future[None]":
        """Take a task that only waits out of its worker, until there is something to do.

        When that has happened meanwhile, the task is free at once, as if released.
        """
        return self._writer.call(lambda backend: waiting_sql.park(backend, parking))

    def signal(self, event: SignalSent) -> None:
        """Send a value to a task."""
        self.append(event)

    def cancel(self, task_id: str, t_s: float) -> "Future[bool]":
        """Ask for the end of a task and of its children; the one that holds them ends them.

        Args:
            task_id: The task.
            t_s: Time on the caller's clock.

        Returns:
            Whether there was an open task to be ended.
        """
        _check_text("task id", task_id)
        return self._writer.call(lambda backend: task_sql.cancel(backend, task_id, t_s))

    def cost_usd(self, task_id: str) -> "Future[float]":
        """What have the attempts of a task and of its children cost, in USD?"""
        _check_text("task id", task_id)
        found = self._writer.call(lambda backend: task_sql.family_attempts(backend, task_id))
        return _mapped(found, _cost_usd)

    def tasks(
        self, state: str = "", limit: int = 100, task_id: str = ""
    ) -> "Future[list[TaskRow]]":
        """Which tasks are there, the newest first?

        Args:
            state: Only those in this state; empty for all.
            limit: At most so many.
            task_id: Only this one; empty for all.
        """
        _check_text("task id", task_id)
        return self._writer.read(
            lambda backend: task_sql.tasks(backend, state=state, limit=limit, task_id=task_id)
        )

    def take_places(
        self, owner: str, asked: tuple[str, list[str]], limit: PoolLimit, lease_s: float
    ) -> "Future[list[str]]":
        """Which of the wanted places in a pool may a process have? See `place_sql`."""
        return self._writer.call(
            lambda backend: place_sql.take_places(backend, owner, asked, limit, lease_s)
        )

    def renew_places(self, owner: str, lease_s: float) -> "Future[None]":
        """Keep a process's places for so many seconds more."""
        return self._writer.call(lambda backend: place_sql.renew_places(backend, owner, lease_s))

    def free_place(self, pool: str, name: str) -> "Future[None]":
        """Give a place back."""
        return self._writer.call(lambda backend: place_sql.free_place(backend, pool, name))

    def events(self, after: int = 0, limit: int = _PAGE) -> "Future[list[tuple[int, bytes]]]":
        """Which events come after a number of the log, as (number, JSON)?"""
        return self._writer.read(lambda backend: task_sql.bodies_after(backend, after, limit))

    def close(self) -> None:
        """Commit what is left and close the database. Closing twice is allowed."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decoded(self, read: Callable[[Backend], list[bytes]]) -> "Future[tuple[Event, ...]]":
        return _mapped(self._writer.read(read), decode_events)


def read_store(store: EventStore) -> Iterator[Event]:
    """What happened, in order?

    Args:
        store: Any store; it is read page by page.

    Yields:
        Every event.
    """
    after = 0
    while page := store.events(after, _PAGE).result():
        yield from iter_events(body for _, body in page)
        after = page[-1][0]


def event_row(event: Event, fence: int | None) -> EventRow:
    """An event as it is stored.

    Raises:
        ConfigError: The task's id cannot be stored.
    """
    if type(event) is RequestServed:
        # The commonest by far, and of an id that this process has drawn.
        return EventRow(event.t_s, _WHOLE, event.step.task_id, _encoder.encode(event), fence, None)
    task_id = task_of(event)
    _check_text("task id", task_id or "")
    return EventRow(
        event.t_s,
        _TAGS[type(event)],
        task_id,
        _encoder.encode(event),
        fence,
        event.status if isinstance(event, TaskFinished) else None,
    )


def decode_events(bodies: list[bytes]) -> tuple[Event, ...]:
    """Stored events as events.

    Raises:
        SchemaMismatchError: One was written by another version.
    """
    return tuple(iter_events(iter(bodies)))


def iter_events(bodies: Iterator[bytes]) -> Iterator[Event]:
    """Stored events as events, one by one; those that stand for several as these."""
    try:
        for body in bodies:
            event = _decoder.decode(body)
            if isinstance(event, RequestServed):
                yield from parts(event)
            else:
                yield event
    except msgspec.DecodeError as error:
        raise SchemaMismatchError(
            f"the log holds an event that this version cannot read: {error}"
        ) from error


def _check_text(what: str, text: str) -> None:
    """Refuse what a database cannot hold, before it is in a group with other people's events."""
    if _UNSTORABLE.search(text):
        raise ConfigError(
            f"{what} {text[:128]!a} cannot be stored: it holds NUL or half a surrogate pair; "
            "leave them out"
        )


def _cost_usd(bodies: list[bytes]) -> float:
    ends = [event for event in decode_events(bodies) if isinstance(event, AttemptFinished)]
    return math.fsum(end.cost_usd for end in ends)


def _first_lease(event: TaskSubmitted) -> Lease:
    return Lease(task_id=event.task_id, agent=event.agent, fence=1, events=(event,))


def _lease(task_id: str, agent: str, fence: int, bodies: list[bytes]) -> Lease:
    return Lease(task_id=task_id, agent=agent, fence=fence, events=decode_events(bodies))


def _mapped(source: "Future[A]", change: Callable[[A], B]) -> "Future[B]":
    """The same future with its result changed; outside of the transaction that brought it."""
    target: Future[B] = Future()
    target.set_running_or_notify_cancel()

    def pass_on(done: "Future[A]") -> None:
        try:
            target.set_result(change(done.result()))
        except StoreError as error:
            target.set_exception(error)

    source.add_done_callback(pass_on)
    return target
