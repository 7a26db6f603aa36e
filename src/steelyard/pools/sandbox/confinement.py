"""What a sandbox lets its processes do: plain values, handed to the first process inside."""

from typing import Literal

import msgspec

SandboxMode = Literal["bubblewrap", "landlock"]

MIB = 1024 * 1024
# Where the private folder lies, as seen from inside; host paths never start with it.
FOLDER = "/private"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a file system of the sandbox's own
SHARED_MEMORY_BYTES = 64 * MIB
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Exit status of the first process inside when the sandbox cannot be made.
SETUP_FAILED_STATUS = 78


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes of one sandbox may use together.

    Attributes:
        memory_bytes: Memory of one call and its children; the interpreter's own is not counted.
        processes: Processes and threads at once.
        folder_bytes: Size of the private folder.
        cores: CPU seconds per second.
        open_files: Open files of one process.
    """

    memory_bytes: int = 2048 * MIB
    processes: int = 64
    folder_bytes: int = 256 * MIB
    cores: float = 1.0
    open_files: int = 256


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What the first process inside must do before anything of a tool runs.

    Attributes:
        mode: Who makes the namespaces: bubblewrap, or the first process itself.
        limits: What may be used.
        readable: Host paths that are seen, read-only.
        become_user_id: User and group id to take; None when the caller is no superuser.
        sum_memory: Whether the first process must add up the memory of all others, since no
            control group does.
        command: Program to run instead of Python tools.
    """

    mode: SandboxMode
    limits: SandboxLimits
    readable: tuple[str, ...]
    become_user_id: int | None = None
    sum_memory: bool = False
    command: tuple[str, ...] = ()
