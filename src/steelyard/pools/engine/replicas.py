"""The replicas of one pool: N supervised child processes that serve the same."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

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


def keep_off(cores: set[int]) -> None:
    """Let this process, and what it starts later, leave these cores to the engines.

    A reader that a frame wakes runs on the core that wrote the frame, as far as the scheduler is
    asked, and takes its time from a pinned engine (ADR 25). Nothing is done where no core would be
    left, or the system cannot say.

    Args:
        cores: Cores on which engines stay.
    """
    if sys.platform == "linux" and (left := os.sched_getaffinity(0) - cores):
        _stay_on(left)


def come_back_to(cores: set[int]) -> None:
    """Use these cores again: the engines on them are gone.

    Args:
        cores: Cores that `keep_off` was told.
    """
    if sys.platform == "linux":
        _stay_on(os.sched_getaffinity(0) | cores)


def _stay_on(cores: set[int]) -> None:
    if sys.platform == "linux":
        for thread in Path("/proc/self/task").iterdir():
            # One may end while they are listed.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
