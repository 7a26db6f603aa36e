"""What a database must offer to hold event log and tasks: rows, transactions, a clock."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from steelyard.domain.events import SignalSent

# What new stores are, and the older versions that this one reads and goes on writing.
SCHEMA_VERSION = 5
OLDER_VERSIONS = frozenset({3, 4})
# Tag of events that are counted at their task.
SIGNAL = str(SignalSent.__struct_config__.tag)


class EventRow(NamedTuple):
    """An event as it is stored.

    Attributes:
        t_s: Its time.
        kind: Its tag.
        task_id: Its task; None when it is about the fleet.
        body: JSON.
        fence: Number of the lease under which it is written; None outside of leases.
        ended: The task's last state, in the row that ends it; None otherwise.
    """

    t_s: float
    kind: str
    task_id: str | None
    body: bytes
    fence: int | None
    ended: str | None


class TaskToAdd(NamedTuple):
    """A task on its way into the store, with the row of its submission.

    Attributes:
        task_id: Its id.
        agent: Its agent.
        priority: Higher ones are taken first.
        submitted_s: When it arrived, on the submitter's clock.
        parent: Task that submits it; empty without one.
        key: Chosen by the caller, unique in the store; empty without one.
        worker: Who has it at once, under lease 1; empty when it is queued.
        lease_s: For how many seconds by the database's clock.
        row: Its submission.
    """

    task_id: str
    agent: str
    priority: int
    submitted_s: float
    parent: str
    key: str
    worker: str
    lease_s: float
    row: EventRow


class Backend(Protocol):
    """One connection to a database; used by one thread.

    What is written outside of `begin` and `commit` is a transaction of its own. Every method
    raises StoreBusyError when the database is held or away for now, StoreError when it cannot do
    what is asked.
    """

    @property
    def where(self) -> str:
        """The database's place, for messages; without secrets."""
        ...

    @property
    def skip_locked(self) -> str:
        """SQL after a SELECT that locks its rows and leaves out those that others have locked."""
        ...

    @property
    def for_share(self) -> str:
        """SQL after a SELECT whose rows nobody is to change until the transaction's end."""
        ...

    @property
    def now_sql(self) -> str:
        """SQL of the database's clock, in seconds since 1970."""
        ...

    @property
    def body_text_sql(self) -> str:
        """SQL of an event's body as text."""
        ...

    @property
    def version(self) -> int:
        """Version of the log as it was when this connection was made, or upgraded by it."""
        ...

    def upgrade(self) -> None:
        """Make it a log of this version; processes of older ones refuse it from then on."""
        ...

    def begin(self) -> None:
        """Start a transaction."""
        ...

    def commit(self) -> None:
        """End it; all of it is on disk then."""
        ...

    def rollback(self) -> None:
        """End it without a trace; connects anew where the connection is gone."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with `?` for parameters and return its rows."""
        ...

    def execute_unflushed(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement outside of transactions, whose effect a crash of the machine may undo."""
        ...

    def write(self, rows: list[EventRow], number: int) -> set[tuple[str, int]]:
        """Append rows whose leases still hold; count their signals, end the tasks that they end.

        Args:
            rows: What to append.
            number: Grows with every call, but not when a call is made again; the rows of a number
                that is in already are not appended a second time.

        Returns:
            Task and fence of rows that were dropped: their tasks have a newer lease.
        """
        ...

    def add_tasks(self, tasks: list[TaskToAdd]) -> set[str]:
        """Put tasks with different ids into the store, except those whose id or key is there.

        Returns:
            Ids of those that were put there.
        """
        ...

    def insert_events(self, rows: list[EventRow]) -> None:
        """Append rows to the log."""
        ...

    def lock_agents(self) -> None:
        """Let no other transaction take tasks until this one ends."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
