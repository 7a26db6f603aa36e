"""What runs first inside a sandbox: `python -I -m steelyard.pools.sandbox.entry CONFINEMENT`.

It gives up every right that is left, checks that they are gone, and then either serves calls of
Python tools or becomes the program that it was told to run.
"""

import ctypes
import math
import os
import resource
import sys
from pathlib import Path

import msgspec

from steelyard.pools.child import live_with_parent
from steelyard.pools.sandbox.confinement import (
    DEVICES,
    FOLDER,
    SETUP_FAILED_STATUS,
    SHARED_MEMORY,
    Confinement,
)
from steelyard.pools.sandbox.landlock import (
    forbid_new_privileges,
    landlock_version,
    restrict_files,
)
from steelyard.pools.sandbox.namespaces import enter_namespaces
from steelyard.pools.sandbox.seccomp import refuse_system_calls
from steelyard.pools.sandbox.zygote import serve

_CAPABILITY_VERSION_3 = 0x20080522


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def main() -> None:
    """Confine this process, then serve or become the program."""
    live_with_parent()
    confinement = msgspec.json.decode(sys.argv[1], type=Confinement)
    try:
        layers = _confine(confinement)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"{error.strerror or error}{where}\n")
        sys.stderr.flush()
        os._exit(SETUP_FAILED_STATUS)
    if confinement.command:
        _limit_address_space(confinement)
        os.execvp(confinement.command[0], confinement.command)  # noqa: S606 - no shell is wanted
    serve(confinement, layers)


def _confine(confinement: Confinement) -> str:
    """Give up rights, in the order in which each step is still allowed.

    Returns:
        The layers that hold.
    """
    if confinement.mode == "landlock":
        enter_namespaces(confinement)
    _become(confinement.become_user_id)
    # The kernel forgets the wish to die with the parent when the user changes.
    live_with_parent()
    _limit_resources(confinement)
    forbid_new_privileges()
    layers = [confinement.mode if confinement.mode == "bubblewrap" else "namespaces", "rlimits"]
    if landlock_version() > 0:
        restrict_files(
            readable=(*confinement.readable, "/proc", "/dev"),
            writable=(FOLDER, SHARED_MEMORY),
            # A process tells the kernel about itself through files.
            devices=(*DEVICES, "/proc"),
        )
        layers.append("Landlock")
    if refuse_system_calls():
        layers.append("seccomp")
    layers.append("memory summed up" if confinement.sum_memory else "control group")
    _prove()
    return ", ".join(layers)


def _become(user_id: int | None) -> None:
    if user_id is not None:
        os.setgroups([])
        os.setresgid(user_id, user_id, user_id)
        os.setresuid(user_id, user_id, user_id)
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset: capabilities cannot be given up")


def _limit_resources(confinement: Confinement) -> None:
    limits = confinement.limits
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes + 1),
        (resource.RLIMIT_FSIZE, limits.folder_bytes),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _, hard = resource.getrlimit(what)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (lower, lower))


def _limit_address_space(confinement: Confinement) -> None:
    # Only where no control group adds up what the program and its children use.
    if confinement.sum_memory:
        limit = confinement.limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _prove() -> None:
    """Fail closed: what must not be possible is tried, whoever was to forbid it.

    Raises:
        OSError: A right is left.
    """
    if os.geteuid() == 0 or os.getegid() == 0:
        raise OSError(0, "the worker still runs as root")
    if os.getpid() != 1:
        raise OSError(0, "the worker is not process 1 of a process namespace of its own")
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    if int(fields["CapEff"], 16) or int(fields["CapPrm"], 16) or fields["NoNewPrivs"] != "1":
        raise OSError(0, "the worker still has capabilities, or can get new ones")
    interfaces = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:]
    if any(line.partition(":")[0].strip() != "lo" for line in interfaces):
        raise OSError(0, "the worker still sees the machine's network")
    for hidden in ("/etc/shadow", "/etc/passwd", "/var/log", "/sys"):
        if Path(hidden).exists():
            raise OSError(0, f"the worker still sees {hidden}")
    if math.isinf(resource.getrlimit(resource.RLIMIT_NPROC)[1]):
        raise OSError(0, "the number of processes is not limited")


if __name__ == "__main__":
    main()
