"""What the driver needs of a cluster, and nothing of Ray itself."""

from collections.abc import Sequence
from typing import Protocol

from steelyard.errors import PoolUnavailableError
from steelyard.pools.ray.frames import Open
from steelyard.pools.ray.host import Told
from steelyard.pools.ray.labels import NodeFacts


class ActorLostError(PoolUnavailableError):
    """The actor's process, or its node, is gone."""


class Actor(Protocol):
    """A `ReplicaHost` on a node. Every call raises `ActorLostError` when it is gone."""

    async def node_id(self) -> str:
        """On which node is it? Waits until it is on one."""
        ...

    async def begin(self, ordinal: int) -> tuple[str, int, str]:
        """Start the backend; see `ReplicaHost.begin`."""
        ...

    async def ask(self, body: bytes) -> None:
        """Begin to answer a request."""
        ...

    async def drop(self, request_id: int) -> None:
        """Stop work on a request."""
        ...

    async def pull(self) -> list[Told]:
        """What is new since the last call?"""
        ...

    async def end(self) -> None:
        """Stop the backend."""
        ...

    def kill(self) -> None:
        """End its process; one that is gone is no mistake."""
        ...


class Cluster(Protocol):
    """Where actors run."""

    async def nodes(self) -> Sequence[NodeFacts]:
        """Which nodes are there now?"""
        ...

    def actor(self, opened: Open) -> Actor:
        """Have an actor on a node that the selectors allow; it starts as soon as there is room."""
        ...
