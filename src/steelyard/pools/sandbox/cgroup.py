"""Control groups: one per sandbox, so that no fork multiplies what it may use.

Version 2 is one tree; version 1 has a tree per controller. Both are used where this process may
write, which a superuser and a user with a delegated systemd slice may.
"""

import contextlib
import errno
import itertools
import os
from pathlib import Path

from steelyard.pools.sandbox.confinement import MIB, SandboxLimits

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
# The interpreter with this package, before a tool is loaded, and bubblewrap beside it.
IDLE_BYTES = 96 * MIB
_IDLE_PROCESSES = 3
_numbers = itertools.count()


class WorkerCgroup:
    """The control group of one sandbox.

    Args:
        memory: Folder in the tree that limits memory.
        pids: Folder in the tree that limits processes.
        cpu: Folder in the tree that limits CPU.
        version: Of the interface.
    """

    def __init__(self, memory: Path, pids: Path, cpu: Path, version: int) -> None:
        self._memory, self._pids, self._cpu = memory, pids, cpu
        self._version = version
        self._limit_bytes = 0

    @property
    def process_files(self) -> tuple[str, ...]:
        """Files to which a process writes its id to come in."""
        folders = dict.fromkeys((self._memory, self._pids, self._cpu))
        return tuple(str(folder / "cgroup.procs") for folder in folders)

    def set_limits(self, limits: SandboxLimits) -> None:
        """Limit memory, processes and CPU.

        Raises:
            OSError: The group is not writable.
        """
        self.limit_memory(limits.memory_bytes)
        (self._pids / "pids.max").write_text(str(limits.processes + _IDLE_PROCESSES))
        quota_us = max(1000, int(limits.cores * _PERIOD_US))
        if self._version == 2:
            (self._cpu / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (self._cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._cpu / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, memory_bytes: int) -> None:
        """Limit the memory of all processes together, beyond what an idle worker takes."""
        total_bytes = memory_bytes + IDLE_BYTES
        if total_bytes == self._limit_bytes:
            return
        if self._version == 2:
            (self._memory / "memory.max").write_text(str(total_bytes))
            _write_if_there(self._memory / "memory.swap.max", 0)
        else:
            # Memory and swap together may never be below memory alone, whatever comes first.
            both = self._memory / "memory.memsw.limit_in_bytes"
            if total_bytes < self._limit_bytes or self._limit_bytes == 0:
                (self._memory / "memory.limit_in_bytes").write_text(str(total_bytes))
                _write_if_there(both, total_bytes)
            else:
                _write_if_there(both, total_bytes)
                (self._memory / "memory.limit_in_bytes").write_text(str(total_bytes))
        self._limit_bytes = total_bytes

    def kills(self) -> int:
        """How many processes were killed so far because the memory was used up?"""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        for line in (self._memory / name).read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self) -> bool:
        """Remove the group; False while processes are still ending in it."""
        gone = True
        for folder in dict.fromkeys((self._memory, self._pids, self._cpu)):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                gone = False
        return gone


def make_cgroup(limits: SandboxLimits) -> WorkerCgroup | None:
    """Make a group for one sandbox, where this process may; None elsewhere."""
    name = f"steelyard-{os.getpid()}-{next(_numbers)}"
    for parents, version in _candidates():
        memory, pids, cpu = parents
        group = WorkerCgroup(memory / name, pids / name, cpu / name, version)
        try:
            for parent in dict.fromkeys(parents):
                _sweep(parent)
                (parent / name).mkdir()
            group.set_limits(limits)
        except OSError:
            with contextlib.suppress(OSError):
                group.remove()
            continue
        return group
    return None


def _sweep(parent: Path) -> None:
    """Remove the empty groups of processes that were killed before they could."""
    for left in parent.glob("steelyard-*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _candidates() -> list[tuple[tuple[Path, Path, Path], int]]:
    own = _own_groups()
    found: list[tuple[tuple[Path, Path, Path], int]] = []
    if "" in own and (_ROOT / "cgroup.controllers").is_file():
        here = _ROOT / own[""].lstrip("/")
        # A group with processes of its own has no limited children, so a sister is made first.
        found.extend(((parent, parent, parent), 2) for parent in (here.parent, here))
    if all(controller in own for controller in ("memory", "pids", "cpu")):
        memory, pids, cpu = (
            _ROOT / controller / own[controller].lstrip("/")
            for controller in ("memory", "pids", "cpu")
        )
        found.append(((memory, pids, cpu), 1))
    return [entry for entry in found if entry[0][0].is_relative_to(_ROOT)]


def _own_groups() -> dict[str, str]:
    """Path of this process's group by controller; the controller of version 2 is empty."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _write_if_there(path: Path, value: int) -> None:
    if path.is_file():
        path.write_text(str(value))
