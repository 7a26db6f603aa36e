"""The interface of every event log."""

from concurrent.futures import Future
from typing import Protocol

from steelyard.domain.events import Event, RequestServed, StepPlaced, StepRefused, parts


class EventLog(Protocol):
    """Takes events in order; `steelyard.store.sqlite_log` keeps them on disk."""

    def append(self, event: Event, fence: int | None = None) -> None:
        """Take one more event; raises StoreError when the log is broken.

        Args:
            event: What happened.
            fence: Number of the lease under which it is written. An event whose task has a newer
                lease by the time of the commit is dropped; `is_lost` tells.
        """
        ...

    def durable(self) -> "Future[None]":
        """When is everything appended so far safe?"""
        ...

    def is_lost(self, task_id: str, fence: int) -> bool:
        """Was an event dropped because another worker holds the task?"""
        ...

    def journal(self, task_id: str) -> "Future[tuple[Event, ...]]":
        """Which events has a task, in order?"""
        ...


def task_of(event: Event) -> str | None:
    """Which task is an event about? None when it is about the fleet."""
    if isinstance(event, StepPlaced | StepRefused | RequestServed):
        return event.step.task_id
    return getattr(event, "task_id", None)


class MemoryEventLog:
    """Keeps events in a list; for tests and for gateways that are told to keep no log."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, event: Event, fence: int | None = None) -> None:
        """Take one more event; there are no leases here, so none is dropped."""
        self.events += parts(event) if isinstance(event, RequestServed) else (event,)

    def durable(self) -> "Future[None]":
        """Memory is as safe at once as it ever gets."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def is_lost(self, task_id: str, fence: int) -> bool:
        """Never: there are no leases."""
        return False

    def journal(self, task_id: str) -> "Future[tuple[Event, ...]]":
        """Which events has a task, in order?"""
        done: Future[tuple[Event, ...]] = Future()
        done.set_result(tuple(event for event in self.events if task_of(event) == task_id))
        return done
