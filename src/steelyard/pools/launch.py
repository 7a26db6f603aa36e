"""How a worker process is started: its command line, environment and limits from outside."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Protocol

import msgspec

# Joins control groups before the program starts, so that none of its processes escapes them.
_JOIN_SCRIPT = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 78; shift; done; shift; exec "$@"'
_CLEAN_UP_TRIES, _CLEAN_UP_PAUSE_S = 200, 0.01


class ControlGroup(Protocol):
    """Limits that the kernel keeps for all processes of a worker together."""

    @property
    def process_files(self) -> tuple[str, ...]:
        """Files to which a process writes its id to come in."""
        ...

    def limit_memory(self, memory_bytes: int) -> None:
        """Limit the memory of all processes together."""
        ...

    def kills(self) -> int:
        """How many processes were killed so far because the memory was used up?"""
        ...

    def remove(self) -> bool:
        """Remove the group; False while processes are still ending in it."""
        ...


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is started.

    Attributes:
        arguments: The program and what it is told.
        environment: Its environment; None hands on the caller's.
        confined: Whether it runs in a sandbox, which then keeps the time limit of each call.
        cgroup: Its control group, where there is one.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] | None
    confined: bool
    cgroup: ControlGroup | None = None

    def command(self) -> tuple[str, ...]:
        """The command line that starts the process within its control group."""
        if self.cgroup is None:
            return self.arguments
        files = self.cgroup.process_files
        return ("/bin/sh", "-c", _JOIN_SCRIPT, "sh", *files, "--", *self.arguments)

    async def clean_up(self) -> None:
        """Remove the control group, once the process has ended."""
        for _ in range(_CLEAN_UP_TRIES):
            if self.cgroup is None or self.cgroup.remove():
                return
            # The dead leave a group a moment after they are reaped; no event says when.
            await asyncio.sleep(_CLEAN_UP_PAUSE_S)


def open_launch(module: str, environment: Mapping[str, str] | None) -> Launch:
    """How is a Python module started with all rights of this user?"""
    return Launch(arguments=(sys.executable, "-m", module), environment=environment, confined=False)
