"""Is a silent engine child dead, or does it wait for a processor that others use?"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

_NANO = 1e-9


def waited_s(pid: int, proc: Path = Path("/proc")) -> dict[int, float]:
    """For how long has each thread of a process waited for a processor, since it began?

    Args:
        pid: The process.
        proc: Where the kernel tells.

    Returns:
        Seconds by thread id; nothing where the kernel does not tell, or the process is gone.
        Source: Linux, Documentation/scheduler/sched-stats.rst: the second field of
        /proc/PID/task/TID/schedstat is nanoseconds spent waiting on a run queue.
    """
    waits: dict[int, float] = {}
    try:
        threads = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return waits
    for thread in threads:
        try:
            told = (thread / "schedstat").read_text(encoding="ascii")
            waits[int(thread.name)] = int(told.split()[1]) * _NANO
        except (OSError, IndexError, ValueError):
            continue  # the thread has ended meanwhile
    return waits


def starved_s(before_s: Mapping[int, float], after_s: Mapping[int, float]) -> float:
    """How long did the thread wait that waited longest between two looks?

    >>> starved_s({1: 2.0, 2: 9.0}, {1: 5.0, 2: 9.5, 3: 1.0})
    3.0
    """
    return max((after_s[one] - before_s.get(one, 0.0) for one in after_s), default=0.0)


class Silence:
    """How long a child has said nothing although it had a processor.

    On a busy machine a child that is killed for its silence would only begin anew, and load its
    model again. So time in which it wants to run and cannot does not count, and neither does time
    in which this process itself could not look.

    Args:
        pid: The child.
        patience_s: Silence after which it counts as dead.
        look_every_s: How often to look; what is told of a silence is late by up to this.
    """

    def __init__(self, pid: int, patience_s: float, look_every_s: float) -> None:
        self._pid = pid
        self.patience_s = patience_s
        self._look_every_s = look_every_s
        self._frames = 0

    def heard(self) -> None:
        """The child has said something."""
        self._frames += 1

    async def lasts(self) -> None:
        """Return once the child has been silent for longer than the patience."""
        loop = asyncio.get_running_loop()
        silent_s = 0.0
        before_s = waited_s(self._pid)
        while silent_s < self.patience_s:
            frames, since_s = self._frames, loop.time()
            await asyncio.sleep(self._look_every_s)
            after_s = waited_s(self._pid)
            # Not more than asked for: a machine that was suspended has not been silent.
            passed_s = min(loop.time() - since_s, self._look_every_s)
            silent_s += max(0.0, passed_s - starved_s(before_s, after_s))
            if self._frames != frames:
                silent_s = 0.0
            before_s = after_s
