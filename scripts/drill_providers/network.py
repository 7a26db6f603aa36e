"""Hosts on one machine: network namespaces joined by pairs of virtual Ethernet devices.

One hub, where gateway and clients run, and one host per provider, each with an address of its own.
Everything is named after the process that makes it and gone when that ends the network. Needs root
and Debian's iproute2.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNET = 0x40000000
# netem is a kernel module that small kernels lack; a narrow link is slow in another way: packets
# queue in front of it.
_DELAYED = ("netem", "delay", "400ms", "100ms")
_NARROW = ("tbf", "rate", "64kbit", "burst", "2kb", "limit", "200kb")


def why_not() -> str:
    """Why can this machine have no such network? Empty where it can."""
    if sys.platform != "linux" or shutil.which("ip") is None or shutil.which("tc") is None:
        return "needs `ip` and `tc` of iproute2 (Linux)"
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    name = f"sydrill{os.getpid()}x"
    made = _ip("netns", "add", name, check=False) and _ip(
        "link", "add", name[:13] + "v", "type", "veth", "peer", "name", "eth0", "netns", name,
        check=False,
    )  # fmt: skip
    _ip("netns", "del", name, check=False)
    return "" if made else "this machine allows no network namespaces, or no veth devices"


class Network:
    """A hub and hosts around it.

    Args:
        hosts: Their names.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._prefix = f"sydrill{os.getpid()}"
        self._hosts = hosts
        self.slowed_by = ""

    def __enter__(self) -> "Network":
        for name in ("hub", *self._hosts):
            _ip("netns", "add", self._space(name))
            self._in(name, "link", "set", "lo", "up")
        for number, host in enumerate(self._hosts, start=1):
            ours, theirs = self._space("hub"), self._space(host)
            _ip("-n", ours, "link", "add", f"to-{host}", "type", "veth",
                "peer", "name", "eth0", "netns", theirs)  # fmt: skip
            self._in("hub", "addr", "add", f"10.213.{number}.1/24", "dev", f"to-{host}")
            self._in("hub", "link", "set", f"to-{host}", "up")
            self._in(host, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._in(host, "link", "set", "eth0", "up")
            self._keep_neighbour(host)
        return self

    def __exit__(self, *error: object) -> None:
        for name in ("hub", *self._hosts):
            _ip("netns", "del", self._space(name), check=False)

    def enter(self) -> None:
        """Move this process, and all that it starts, to the hub; before it has other threads."""
        with Path("/run/netns", self._space("hub")).open("rb") as space:
            # os.setns came with Python 3.12.
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, f"setns: {os.strerror(code)}")

    def address(self, host: str) -> str:
        """The address of a host."""
        return f"10.213.{self._hosts.index(host) + 1}.2"

    def command(self, name: str, *command: str) -> list[str]:
        """The command line that runs a program on a host, or on the `hub`."""
        return ["ip", "netns", "exec", self._space(name), *command]

    def cut(self, host: str) -> None:
        """Pull the host's cable: packets are lost both ways, connections hang."""
        self._in(host, "link", "set", "eth0", "down")

    def join(self, host: str) -> None:
        """Put the cable back; addresses and connections are as they were."""
        self._in(host, "link", "set", "eth0", "up")
        self._keep_neighbour(host)

    def slow(self, host: str) -> None:
        """Delay what the host sends by 0.3 to 0.5 s, or send it over 64 kbit/s."""
        for how in (_DELAYED, _NARROW):
            if self._shape(host, "add", *how):
                self.slowed_by = " ".join(how)
                return
        raise RuntimeError("tc can neither delay packets nor narrow a link on this kernel")

    def hasten(self, host: str) -> None:
        """End what `slow` did."""
        self._shape(host, "del")

    def _shape(self, host: str, verb: str, *how: str) -> bool:
        line = ["tc", "-n", self._space(host), "qdisc", verb, "dev", "eth0", "root", *how]
        return subprocess.run(line, capture_output=True, check=False).returncode == 0  # noqa: S603

    def _keep_neighbour(self, host: str) -> None:
        """Without this, a cut host would be refused as unreachable after 3 s: a kinder fault."""
        shown = _run(["ip", "-n", self._space(host), "-br", "link", "show", "eth0"])
        self._in("hub", "neigh", "replace", self.address(host), "lladdr", shown.split()[2],
                 "dev", f"to-{host}", "nud", "permanent")  # fmt: skip

    def _space(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _in(self, name: str, *words: str) -> None:
        _ip("-n", self._space(name), *words)


def _ip(*words: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if check and done.returncode:
        raise RuntimeError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.returncode == 0


def _run(line: list[str]) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout  # noqa: S603
