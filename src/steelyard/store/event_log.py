"""The interface of every event log."""

from concurrent.futures import Future
from typing import Protocol

from steelyard.domain.events import Event


class EventLog(Protocol):
    """Takes events in order; `steelyard.store.sqlite_log` keeps them on disk."""

    def append(self, event: Event) -> int:
        """Take one more event and return its number; raises StoreError when the log is broken."""
        ...

    def durable(self) -> "Future[None]":
        """When is everything appended so far safe?"""
        ...


class MemoryEventLog:
    """Keeps events in a list; for tests and for gateways that are told to keep no log."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, event: Event) -> int:
        """Take one more event."""
        self.events.append(event)
        return len(self.events)

    def durable(self) -> "Future[None]":
        """Memory is as safe at once as it ever gets."""
        done: Future[None] = Future()
        done.set_result(None)
        return done
