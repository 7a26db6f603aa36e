"""Namespaces and a root of its own without bubblewrap: the same view, made by system calls.

The calls are Linux's own (mount_namespaces(7), pivot_root(2), mount_setattr(2)); they need either
a superuser or unprivileged user namespaces, which some systems switch off.
"""

import ctypes
import fcntl
import os
import platform
import socket
import stat
import struct
from pathlib import Path
from typing import Never

from steelyard.pools.child import live_with_parent
from steelyard.pools.sandbox.confinement import (
    DEVICES,
    FOLDER,
    SHARED_MEMORY,
    SHARED_MEMORY_BYTES,
    Confinement,
)

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

# Becomes the new root in this namespace alone; every system has it.
_BASE = "/tmp"  # noqa: S108


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def enter_namespaces(confinement: Confinement) -> None:
    """Go on as process 1 of new namespaces, in a root that shows `confinement.readable` alone.

    The calling process stays behind and waits.

    Raises:
        OSError: The kernel allows no such namespace; the message names the call.
    """
    user_id, group_id = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
    if user_id != 0:
        flags |= _CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(flags), "unshare(namespaces)")
    if user_id != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user_id} {user_id} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group_id} {group_id} 1", encoding="ascii")
    child = os.fork()
    if child != 0:
        _wait_for(child)
    live_with_parent()
    _loopback_up()
    _make_root(confinement)


def _wait_for(child: int) -> Never:
    # The pipes belong to the child alone: who holds their other ends must see them close.
    os.closerange(0, 3)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _make_root(confinement: Confinement) -> None:
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    # Opened before the new root hides what lies beneath it.
    files = {path: os.open(path, os.O_PATH) for path in (*confinement.readable, *DEVICES)}
    _mount("tmpfs", _BASE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for path, file in files.items():
        _bind(path, file)
        os.close(file)
    for path, target in (("/dev/fd", "/proc/self/fd"), ("/dev/stderr", "/proc/self/fd/2")):
        Path(_BASE + path).symlink_to(target)
    _tmpfs(SHARED_MEMORY, SHARED_MEMORY_BYTES)
    _tmpfs(FOLDER, confinement.limits.folder_bytes)
    link = Path(_BASE + "/tmp")  # noqa: S108
    if not link.exists():
        link.symlink_to(FOLDER)
    Path(_BASE + "/proc").mkdir()
    _mount("proc", _BASE + "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _restrict(_BASE, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)
    os.chdir(_BASE)
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount2(old root)")
    os.chdir(FOLDER)


def _bind(path: str, file: int) -> None:
    place = Path(_BASE + path)
    place.parent.mkdir(parents=True, exist_ok=True)
    opened = f"/proc/self/fd/{file}"
    if stat.S_ISDIR(os.fstat(file).st_mode):
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(opened, str(place), "", _MS_BIND | _MS_REC)
    if path in DEVICES:
        _restrict(str(place), _ATTR_NOSUID, recursive=False)
    else:
        _restrict(str(place), _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=True)


def _tmpfs(path: str, size_bytes: int) -> None:
    Path(_BASE + path).mkdir(parents=True)
    options = f"mode=1777,size={size_bytes}"
    _mount("tmpfs", _BASE + path, "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def _mount(source: str, place: str, kind: str, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(
        source.encode(), place.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(done, f"mount({kind or source} at {place})")


def _restrict(place: str, attributes: int, *, recursive: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    attr = _MountAttr(attributes, 0, 0, 0)
    done = libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        _AT_FDCWD,
        place.encode(),
        _AT_RECURSIVE if recursive else 0,
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _check(done, f"mount_setattr({place})")


def _check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
