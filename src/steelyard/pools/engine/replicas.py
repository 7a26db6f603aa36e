"""The replicas of one pool: N supervised child processes that serve the same."""

import asyncio
import os
import sys
from collections.abc import Callable

from steelyard.errors import PoolUnavailableError
from steelyard.pools.backend import ReplicaWatcher
from steelyard.pools.engine.frames import Load
from steelyard.pools.engine.supervisor import ReplicaSupervisor, SupervisorLimits


class Replicas:
    """Starts, knows and stops the child processes of a pool.

    Args:
        count: How many there are.
        limits: When one is full or dead.
    """

    def __init__(self, count: int, limits: SupervisorLimits) -> None:
        self.count = count
        self._limits = limits
        self._supervisors: list[ReplicaSupervisor] = []

    def supervisor(self, replica: int) -> ReplicaSupervisor:
        """Who supervises the replica?

        Raises:
            PoolUnavailableError: Nothing is started.
        """
        if not self._supervisors:
            raise PoolUnavailableError("The embedded engine is not started.")
        return self._supervisors[replica]

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus output that every replica takes; 0 before they are up."""
        return min((one.context_tokens for one in self._supervisors), default=0)

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values every replica holds; 0 before they are up."""
        return min((one.cache_tokens for one in self._supervisors), default=0)

    def is_up(self, replica: int) -> bool:
        """Does the replica take requests?"""
        return bool(self._supervisors) and self._supervisors[replica].is_up

    def pid(self, replica: int) -> int | None:
        """Process id of the replica; None while it is down."""
        return self._supervisors[replica].pid if self._supervisors else None

    def in_flight(self, replica: int) -> int:
        """How many requests run or wait on the replica?"""
        return self._supervisors[replica].in_flight if self._supervisors else 0

    async def start(self, load: Callable[[int], Load], watch: ReplicaWatcher | None) -> None:
        """Start every child and wait until all are ready.

        Args:
            load: What a replica serves, by its number.
            watch: Called when a replica goes down or comes back.

        Raises:
            ConfigError: The model cannot be loaded.
            PoolUnavailableError: A child died while loading.
        """
        for replica in range(self.count):
            supervisor = ReplicaSupervisor(replica, load(replica), self._limits, watch)
            self._supervisors.append(supervisor)
        try:
            await asyncio.gather(*(s.start() for s in self._supervisors))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop all children; requests in flight fail with PoolUnavailableError."""
        supervisors, self._supervisors = self._supervisors, []
        await asyncio.gather(*(s.close() for s in supervisors))


def own_core(replica: int) -> int | None:
    """On which core does a replica stay? None where the system cannot say."""
    if sys.platform != "linux":
        return None
    cores = sorted(os.sched_getaffinity(0))
    # From the last core down: the gateway and its neighbours tend to sit on the first.
    return cores[-1 - replica % len(cores)]
