"""How a process is started inside a sandbox, and which sandbox this machine can make."""

import asyncio
import itertools
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from steelyard.errors import ConfigError, SandboxUnavailableError
from steelyard.pools.launch import Launch
from steelyard.pools.sandbox.cgroup import make_cgroup
from steelyard.pools.sandbox.confinement import (
    FOLDER,
    SHARED_MEMORY,
    SHARED_MEMORY_BYTES,
    Confinement,
    SandboxLimits,
    SandboxMode,
)

_ENTRY_MODULE = "steelyard.pools.sandbox.entry"
_PROBE_TIMEOUT_S = 30.0
# What a tool may learn of the caller's environment: how to write dates and texts.
_KEPT_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
# Libraries, interpreters and the linker's list of them; no settings, no accounts.
_SYSTEM_PATHS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
_TOO_BROAD = tuple(Path(path) for path in ("/", "/etc", "/home", "/root", "/tmp", "/var"))  # noqa: S108
# systemd keeps these user ids for services of the moment; no account has one.
_FIRST_USER_ID, _USER_IDS = 61184, 4335
_numbers = itertools.count()


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """Makes sandboxes of one kind.

    Attributes:
        mode: Who makes the namespaces.
        limits: What each sandbox may use.
        readable: Host paths that are seen inside, besides Python and the system's libraries.
    """

    mode: SandboxMode
    limits: SandboxLimits = SandboxLimits()
    readable: tuple[str, ...] = ()

    def launch(self, environment: Mapping[str, str], command: tuple[str, ...] = ()) -> Launch:
        """How is the next process started inside?

        Args:
            environment: Of the caller; only language and time zone are handed on.
            command: A program to run; nothing for a worker that runs Python tools.

        Returns:
            The command line, with a control group where this process may make one.

        Raises:
            ConfigError: A readable path would show too much.
        """
        readable = readable_paths(self.readable)
        cgroup = make_cgroup(self.limits)
        confinement = Confinement(
            mode=self.mode,
            limits=self.limits,
            readable=readable,
            become_user_id=_next_user_id() if os.geteuid() == 0 else None,
            sum_memory=cgroup is None,
            command=command,
        )
        encoded = msgspec.json.encode(confinement).decode()
        # -I: neither the folder of the caller nor its variables change what is loaded.
        arguments: tuple[str, ...] = (sys.executable, "-I", "-m", _ENTRY_MODULE, encoded)
        if self.mode == "bubblewrap":
            arguments = (*_bubblewrap(confinement), "--", *arguments)
        kept = {name: environment[name] for name in _KEPT_VARIABLES if name in environment}
        return Launch(
            arguments=arguments,
            environment={
                **kept,
                "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
                "HOME": FOLDER,
                "TMPDIR": FOLDER,
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            confined=True,
            cgroup=cgroup,
        )


async def find_sandbox(
    wanted: Literal["auto", "bubblewrap", "landlock"],
    limits: SandboxLimits,
    readable: tuple[str, ...] = (),
) -> Sandbox:
    """Which sandbox can this machine make? Each is tried with a real process.

    Args:
        wanted: A kind, or `auto` for the first that works.
        limits: What each sandbox may use.
        readable: Host paths to be seen inside.

    Returns:
        The sandbox.

    Raises:
        SandboxUnavailableError: None works; the message says what each one lacks.
        ConfigError: A readable path would show too much.
    """
    modes: tuple[SandboxMode, ...] = ("bubblewrap", "landlock") if wanted == "auto" else (wanted,)
    reasons: list[str] = []
    for mode in modes:
        sandbox = Sandbox(mode=mode, limits=limits, readable=readable)
        reason = await _try(sandbox)
        if reason is None:
            return sandbox
        reasons.append(f"{mode}: {reason}")
    raise SandboxUnavailableError(
        f"tools cannot be confined on this machine ({'; '.join(reasons)}); install bubblewrap and "
        'allow user namespaces, or set sandbox = "off" to run tools with all rights of this user'
    )


def readable_paths(further: tuple[str, ...]) -> tuple[str, ...]:
    """Which host paths are seen inside? The fewest that hold them all, parents first.

    Args:
        further: Paths besides Python, this package and the system's libraries.

    Raises:
        ConfigError: One would show the whole machine, or a home folder.
    """
    package = str(Path(__file__).parents[2])
    python = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), package}
    for path in further:
        _refuse_broad(Path(path))
    wanted = {str(Path(path).absolute()) for path in (*_SYSTEM_PATHS, *python, *further)}
    kept: list[str] = []
    for path in sorted(wanted):
        covered = any(Path(path).is_relative_to(parent) for parent in kept)
        if Path(path).exists() and not covered:
            kept.append(path)
    return tuple(kept)


def _refuse_broad(path: Path) -> None:
    if path.resolve() in _TOO_BROAD or _home().is_relative_to(path.resolve()):
        raise ConfigError(
            f"a sandbox that shows {path} shows a home folder or a whole system; put what tools "
            "need into a folder of their own"
        )


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A user without an account, as in many containers.
        return Path("/")


async def _try(sandbox: Sandbox) -> str | None:
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no namespaces"
    if sandbox.mode == "bubblewrap" and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    launch = sandbox.launch({}, command=(sys.executable, "-I", "-S", "-c", ""))
    try:
        process = await asyncio.create_subprocess_exec(
            *launch.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=launch.environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                _, messages = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"it did not start within {_PROBE_TIMEOUT_S:g} s"
        last = messages.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return None if process.returncode == 0 else last[0]
    finally:
        await launch.clean_up()


def _next_user_id() -> int:
    return _FIRST_USER_ID + (os.getpid() * 64 + next(_numbers)) % _USER_IDS


def _bubblewrap(confinement: Confinement) -> tuple[str, ...]:
    # Source of every option: bwrap(1), version 0.8.
    spaces = "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try"
    arguments = [shutil.which("bwrap") or "bwrap", *spaces.split()]
    arguments += ["--hostname", "tool", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    if confinement.become_user_id is None:
        arguments += ["--unshare-user", "--disable-userns"]
    else:
        # A superuser needs no user namespace. What is left to it is to become somebody else, which
        # the first process inside does before anything of a tool is loaded.
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    parents = {str(parent) for path in confinement.readable for parent in Path(path).parents}
    for parent in sorted(parents - {"/"}):
        # By itself bubblewrap makes them for the superuser alone.
        arguments += ["--perms", "0755", "--dir", parent]
    for path in confinement.readable:
        link = Path(path)
        # /lib and its like are links on most systems, and must stay links to be found.
        arguments += (
            ["--symlink", str(link.readlink()), path]
            if link.is_symlink()
            else ["--ro-bind", path, path]
        )
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += _tmpfs(SHARED_MEMORY, SHARED_MEMORY_BYTES)
    arguments += _tmpfs(FOLDER, confinement.limits.folder_bytes)
    if not any(path.startswith("/tmp") for path in confinement.readable):  # noqa: S108
        arguments += ["--symlink", FOLDER, "/tmp"]  # noqa: S108
    # What bubblewrap has made itself is writable and has no size: close it.
    return (*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER)


def _tmpfs(path: str, size_bytes: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size_bytes), "--tmpfs", path]
