"""Pools whose replicas come and go while they run: what they tell, and what they are told."""

from typing import Protocol, runtime_checkable

from steelyard.pools.backend import ToolOutcome, ToolRequest


class ElasticWatch(Protocol):
    """Told when a replica comes, goes or is about to go."""

    async def told(
        self, replica: int, *, up: bool, reason: str, draining: bool = False, rented: bool = True
    ) -> None:
        """A replica changed; the arguments are those of the event `ReplicaChanged`."""
        ...


@runtime_checkable
class ElasticBackend(Protocol):
    """A pool with fewer replicas up than it may have."""

    @property
    def bounds(self) -> tuple[int, int]:
        """How many replicas are there at least, and at most?"""
        ...

    @property
    def replica_slots(self) -> int:
        """How many steps run at once on one replica?"""
        ...

    def scale(self, replicas: int) -> None:
        """Have so many replicas, as soon as may be: those with the lowest indices.

        One that is to go takes no new steps, and goes when its last one has ended.
        """
        ...


@runtime_checkable
class PlacedToolBackend(Protocol):
    """A pool of tools in which the policy says where a call runs."""

    async def run_on(self, request: ToolRequest, replica: int) -> ToolOutcome:
        """As `ToolBackend.run`, on this replica."""
        ...
