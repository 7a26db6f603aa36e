"""What a database must offer to hold event log and tasks: rows, transactions, a clock."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


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


class Backend(Protocol):
    """One connection to a database; used by one thread.

    Every method raises StoreBusyError when the database is held or away for now, StoreError
    when it cannot do what is asked.
    """

    @property
    def where(self) -> str:
        """The database's place, for messages; without secrets."""
        ...

    @property
    def skip_locked(self) -> str:
        """SQL after a SELECT that locks its rows and leaves out those that others have locked."""
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

    def fences(self, task_ids: list[str]) -> dict[str, int]:
        """Which leases do tasks have? Their rows stay as they are until the transaction's end."""
        ...

    def insert_events(self, rows: list[EventRow]) -> None:
        """Append rows to the log."""
        ...

    def end_tasks(self, state: str, task_ids: list[str]) -> None:
        """Tasks have ended in this state; nobody holds them any more."""
        ...

    def lock_agents(self) -> None:
        """Let no other transaction take tasks until this one ends."""
        ...

    def now_s(self) -> float:
        """What time is it by the database's clock, in seconds since 1970?"""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
