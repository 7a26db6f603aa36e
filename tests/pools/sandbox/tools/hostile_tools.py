"""Tools that do what a sandbox must contain."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MIB = 1024 * 1024


def add(a: int, b: int) -> int:
    return a + b


def hang() -> None:
    while True:
        pass


def burn_in_threads(wall_s: float) -> None:
    code = "while True: pass"
    for _ in range(2):
        subprocess.Popen([sys.executable, "-c", code])  # noqa: S603
    time.sleep(wall_s)


def fork_bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


def fork(children: int) -> int:
    for made in range(children):
        try:
            pid = os.fork()
        except OSError:
            return made
        if pid == 0:
            time.sleep(600)
            os._exit(0)
    return children


def eat_memory(size_bytes: int) -> int:
    taken: list[bytearray] = []
    while sum(map(len, taken)) < size_bytes:
        taken.append(bytearray(MIB))
    return sum(map(len, taken))


def eat_memory_in_children(children: int, size_bytes: int) -> int:
    for _ in range(children):
        if os.fork() == 0:
            os.setsid()
            taken = bytearray(size_bytes)
            time.sleep(600)
            os._exit(len(taken) % 2)
    time.sleep(600)
    return children


def children_killed_for_memory(children: int, size_bytes: int) -> int:
    pids: list[int] = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            taken = bytearray(size_bytes)
            time.sleep(1.0)
            os._exit(len(taken) % 2)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return sum(1 for status in statuses if os.waitstatus_to_exitcode(status) == -signal.SIGKILL)


def write(path: str) -> str:
    try:
        Path(path).write_text("here", encoding="utf-8")
    except OSError as error:
        return type(error).__name__
    return "written"


def change_mode(path: str) -> str:
    try:
        Path(path).chmod(0o777)
    except OSError as error:
        return type(error).__name__
    return "changed"


def read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError as error:
        return type(error).__name__


def listing(path: str) -> list[str]:
    return sorted(os.listdir(path))  # noqa: PTH208


def exists(paths: list[str]) -> list[str]:
    return [path for path in paths if os.path.lexists(path)]


def processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208


def connect(family: int, kind: int, address: list[object] | str) -> str:
    target = tuple(address) if isinstance(address, list) else address
    try:
        with socket.socket(family, kind) as client:
            client.settimeout(1)
            client.connect(target)
            client.send(b"out")
    except OSError as error:
        return type(error).__name__
    return "sent"


def make_socket(family: int) -> str:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        return str(error.strerror)
    return "made"


def kill_everybody() -> list[str]:
    outcomes: list[str] = []
    for pid in (1, os.getppid(), -1):
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
                outcomes.append("sent")
            except OSError as error:
                outcomes.append(type(error).__name__)
    return outcomes


def leave_daemon() -> str:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(0.01)
        os._exit(0)
    return "left"


def fill_folder() -> int:
    written = 0
    try:
        for number in range(1000):
            with open(f"file-{number}", "wb", buffering=0) as file:  # noqa: PTH123
                while True:
                    written += file.write(b"x" * MIB)
    except OSError:
        return written
    return written


def resist_removal(depth: int) -> str:
    for _ in range(depth):
        os.mkdir("deeper")  # noqa: PTH102
        os.chdir("deeper")
    os.chmod(".", 0)  # noqa: PTH101
    return "done"


def return_much(size_bytes: int) -> str:
    return "x" * size_bytes


def tamper() -> list[str]:
    """Write frames to whatever is open, here and in the parent."""
    outcomes: list[str] = []
    garbage = b"\x01\x00\x00\x00\xc0" * 100
    for file in range(3, 64):
        try:
            os.write(file, garbage)
        except OSError:
            continue
    for name in ("/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/mem"):
        try:
            with open(name, "wb", buffering=0) as opened:  # noqa: PTH123
                opened.write(garbage)
                outcomes.append(f"wrote to {name}")
        except OSError as error:
            outcomes.append(type(error).__name__)
    return outcomes


def attach_to_parent() -> int:
    return int(ctypes.CDLL(None).ptrace(16, 1, 0, 0))


def shout(size_bytes: int) -> int:
    return sum(os.write(2, b"x" * MIB) for _ in range(size_bytes // MIB))


def identity() -> dict[str, object]:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    return {
        "user_id": os.getuid(),
        "group_id": os.getgid(),
        "groups": os.getgroups(),
        "capabilities": int(fields["CapEff"], 16),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }


def new_user_namespace() -> int:
    return int(ctypes.CDLL(None).unshare(0x10000000))
