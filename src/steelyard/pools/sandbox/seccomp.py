"""System calls that no tool needs, refused with libseccomp where the machine has it.

The library writes the filter; only names stand here. A second line of defence behind namespaces:
it takes away parts of the kernel in which holes were found.
"""

import ctypes
import errno

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _GREATER, _MASKED_EQUAL = 4, 6, 7
_CLONE_NEWUSER = 0x10000000
# AF_UNIX, AF_INET and AF_INET6 belong to the network namespace. Others do not: AF_VSOCK speaks to
# the host of a virtual machine, AF_ALG and AF_NETLINK to the kernel.
_SOCKET_FAMILIES = frozenset({1, 2, 10})

# fmt: off
_REFUSED = (
    # Other processes, and the kernel itself.
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "bpf",
    "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot",
    "syslog", "lookup_dcookie", "vhangup", "acct", "quotactl", "quotactl_fd",
    # File systems and namespaces.
    "mount", "umount2", "pivot_root", "chroot", "swapon", "swapoff", "unshare", "setns",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "open_by_handle_at", "name_to_handle_at", "fanotify_init",
    # Memory that outlives a call.
    "add_key", "request_key", "keyctl", "shmget", "semget", "msgget", "mq_open",
    # Clocks, and placement of memory.
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "mbind", "set_mempolicy",
    "migrate_pages", "move_pages",
)
# fmt: on


class _Compare(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def refuse_system_calls() -> bool:
    """Refuse needless system calls to this process and its children, for ever.

    Returns:
        False when libseccomp is not installed, and nothing was refused.

    Raises:
        OSError: The library or the kernel refuses the filter.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    library.seccomp_init.restype = ctypes.c_void_p
    # Calls of another architecture (32-bit) kill the process: libseccomp's default.
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if context.value is None:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        for name in _REFUSED:
            _refuse(library, context, name, errno.EPERM)
        # Its flags lie in memory, where a filter cannot look; C libraries then use clone.
        _refuse(library, context, "clone3", errno.ENOSYS)
        new_user = _Compare(0, _MASKED_EQUAL, _CLONE_NEWUSER, _CLONE_NEWUSER)
        _refuse(library, context, "clone", errno.EPERM, new_user)
        for compare in _other_families():
            for call in ("socket", "socketpair"):
                _refuse(library, context, call, errno.EAFNOSUPPORT, compare)
        _check(library.seccomp_load(context), "seccomp_load")
    finally:
        library.seccomp_release(context)
    return True


def _other_families() -> list[_Compare]:
    # One comparison per rule and argument is all that libseccomp takes.
    last = max(_SOCKET_FAMILIES)
    refused = [family for family in range(last) if family not in _SOCKET_FAMILIES]
    return [_Compare(0, _EQUAL, family, 0) for family in refused] + [_Compare(0, _GREATER, last, 0)]


def _refuse(
    library: ctypes.CDLL, context: ctypes.c_void_p, name: str, error: int, *compare: _Compare
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        # This architecture, or this version of the library, does not know the call.
        return
    array = (_Compare * len(compare))(*compare)
    action = ctypes.c_uint32(_ERRNO | error)
    added = library.seccomp_rule_add_array(context, action, number, len(compare), array)
    _check(added, name)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"seccomp: {what}")
