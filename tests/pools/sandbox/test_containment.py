"""Tools that hang, fork, fill, spy, send and kill, in real sandboxes; then the next call."""

import asyncio
import functools
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import (
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    SandboxUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.sandbox import launch
from steelyard.pools.sandbox.cgroup import make_cgroup
from steelyard.pools.sandbox.confinement import SandboxLimits, SandboxMode
from steelyard.pools.sandbox.launch import Sandbox, find_sandbox
from steelyard.pools.tools import ProcessToolPool

MIB = 1024 * 1024
TOOLS = str(Path(__file__).parent / "tools")
LIMITS = SandboxLimits(memory_bytes=96 * MIB, processes=12, folder_bytes=8 * MIB, cores=1.0)
MODES: tuple[SandboxMode, ...] = ("bubblewrap", "landlock")


@functools.cache
def sandbox_of(mode: SandboxMode) -> Sandbox | str:
    try:
        return asyncio.run(find_sandbox(mode, LIMITS, (TOOLS,)))
    except SandboxUnavailableError as error:
        return str(error)


@pytest.fixture(params=MODES)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found = sandbox_of(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
async def pool(sandbox: Sandbox) -> AsyncIterator[ProcessToolPool]:
    environment = {**os.environ, "SECRET_KEY": "sesame", "LANG": "C.UTF-8"}
    pool = ProcessToolPool(1, (TOOLS,), environment, sandbox)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
async def pool_without_cgroup(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ProcessToolPool]:
    def no_cgroup(_limits: SandboxLimits) -> None:
        return None

    monkeypatch.setattr(launch, "make_cgroup", no_cgroup)
    pool = ProcessToolPool(1, (TOOLS,), {}, sandbox)
    await pool.start()
    yield pool
    await pool.close()


async def call(
    pool: ProcessToolPool, name: str, timeout_s: float = 20.0, **arguments: Any
) -> ToolOutcome:
    request = ToolRequest(tool=f"hostile_tools:{name}", arguments=arguments, timeout_s=timeout_s)
    return await pool.run(request)


async def still_works(pool: ProcessToolPool) -> None:
    assert (await call(pool, "add", a=2, b=3)).result == 5


async def test_a_tool_that_hangs_is_ended_and_its_worker_stays_warm(pool: ProcessToolPool) -> None:
    (worker,) = pool.pids()
    with pytest.raises(PoolTimeoutError, match=r"longer than 0\.5 s and was killed"):
        await call(pool, "hang", timeout_s=0.5)
    await still_works(pool)
    assert pool.pids() == (worker,)


async def test_a_fork_bomb_meets_the_limit_and_ends_with_its_call(pool: ProcessToolPool) -> None:
    assert (await call(pool, "fork", children=200)).result < LIMITS.processes
    with pytest.raises(PoolTimeoutError):
        await call(pool, "fork_bomb", timeout_s=1.0)
    assert len((await call(pool, "processes")).result) == 2
    await still_works(pool)


async def test_memory_is_limited(pool: ProcessToolPool) -> None:
    with pytest.raises(ToolFailedError, match="more memory than it may|MemoryError"):
        await call(pool, "eat_memory", size_bytes=2048 * MIB)
    assert (await call(pool, "eat_memory", size_bytes=32 * MIB)).result == 32 * MIB


async def test_a_call_may_be_given_less_memory(pool: ProcessToolPool) -> None:
    request = ToolRequest(
        tool="hostile_tools:eat_memory",
        arguments={"size_bytes": 64 * MIB},
        memory_bytes=16 * MIB,
    )
    with pytest.raises(ToolFailedError, match="more memory than it may|MemoryError"):
        await pool.run(request)
    assert (await call(pool, "eat_memory", size_bytes=64 * MIB)).result == 64 * MIB


async def test_children_do_not_multiply_memory_without_control_groups(
    pool_without_cgroup: ProcessToolPool,
) -> None:
    pool = pool_without_cgroup
    with pytest.raises(ToolFailedError, match="more memory than it may"):
        await call(pool, "eat_memory_in_children", children=6, size_bytes=40 * MIB)
    with pytest.raises(ToolFailedError, match="more memory than it may|MemoryError"):
        await call(pool, "eat_memory", size_bytes=2048 * MIB)
    assert (await call(pool, "fork", children=200)).result < LIMITS.processes
    await still_works(pool)


async def test_children_do_not_multiply_memory_in_a_control_group(sandbox: Sandbox) -> None:
    group = make_cgroup(LIMITS)
    if group is None:
        pytest.skip("no control group may be made here")
    group.remove()
    pool = ProcessToolPool(1, (TOOLS,), {}, sandbox)
    await pool.start()
    try:
        # 8 times 80 MiB do not fit into 96: the kernel kills children, not the call.
        killed = await call(pool, "children_killed_for_memory", children=8, size_bytes=80 * MIB)
        assert 6 <= killed.result < 8
        await still_works(pool)
    finally:
        await pool.close()


async def test_nothing_but_the_private_folder_can_be_written(
    pool: ProcessToolPool, tmp_path: Path
) -> None:
    secret = tmp_path / "events.db"
    secret.write_text("the log", encoding="utf-8")
    paths = ("/usr/here", "/etc/here", "/dev/here", "/proc/here", "/here", f"{TOOLS}/here.py")
    for path in (*paths, str(tmp_path / "here"), str(secret), "/proc/sys/kernel/hostname"):
        assert (await call(pool, "write", path=path)).result != "written", path
    for path in (TOOLS, f"{TOOLS}/hostile_tools.py", "/usr"):
        assert (await call(pool, "change_mode", path=path)).result != "changed", path
    assert (await call(pool, "write", path="mine")).result == "written"
    # Where Python or the tools lie below /tmp, it holds them, read-only; TMPDIR is the folder.
    tmp = Path("/tmp")  # noqa: S108
    used = any(Path(path).resolve().is_relative_to(tmp) for path in (sys.prefix, TOOLS))
    outcome = (await call(pool, "write", path="/tmp/mine")).result  # noqa: S108
    assert (outcome != "written") if used else (outcome == "written")
    assert secret.read_text(encoding="utf-8") == "the log"
    assert not Path("/here").exists()


async def test_nothing_of_the_machine_can_be_read(pool: ProcessToolPool, tmp_path: Path) -> None:
    log = tmp_path / "events.db"
    log.write_text("the log", encoding="utf-8")
    home = str(Path.home() / ".bashrc")
    for path in ("/etc/shadow", "/etc/passwd", str(log), home, "/proc/1/environ", "/proc/1/maps"):
        outcome = (await call(pool, "read", path=path)).result
        assert outcome in {"FileNotFoundError", "PermissionError"}, (path, outcome)
    roots = [f"/{name}" for name in ("home", "root", "var", "sys", "run", "boot", "opt", "mnt")]
    visible = (await call(pool, "exists", paths=roots)).result
    assert set(visible) <= _roots_of_python()
    assert (await call(pool, "read", path=f"/proc/self/fd/2/../../{log}")).result != "the log"


def _roots_of_python() -> set[str]:
    return {f"/{Path(path).parts[1]}" for path in launch.readable_paths((TOOLS,))}


async def test_the_environment_and_the_rights_of_the_caller_stay_outside(
    pool: ProcessToolPool,
) -> None:
    seen = (await call(pool, "identity")).result
    assert seen["user_id"] != 0
    assert seen["group_id"] != 0
    assert seen["capabilities"] == 0
    assert seen["folder"] == "/private"
    assert "SECRET_KEY" not in seen["environment"]
    assert set(seen["environment"]) <= {
        *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PWD"),
        "PYTHONDONTWRITEBYTECODE",
    }
    assert (await call(pool, "new_user_namespace")).result == -1


async def test_no_socket_reaches_the_machine(pool: ProcessToolPool, tmp_path: Path) -> None:
    name = f"\0steelyard-test-{os.getpid()}"
    paths = (str(tmp_path / "socket"), name)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as named,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract,
    ):
        for listener, address in (
            (tcp, ("127.0.0.1", 0)),
            (udp, ("127.0.0.1", 0)),
            (named, paths[0]),
            (abstract, paths[1]),
        ):
            listener.bind(address)
            listener.setblocking(False)
        for listener in (tcp, named, abstract):
            listener.listen()
        stream, datagram = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)
        inet, unix = int(socket.AF_INET), int(socket.AF_UNIX)
        attempts: list[tuple[int, int, Any]] = [
            (inet, stream, list(tcp.getsockname())),
            (inet, stream, ["192.0.2.1", 80]),
            (inet, datagram, ["192.0.2.1", 53]),
            (unix, stream, paths[0]),
            (unix, stream, paths[1]),
        ]
        for family, kind, address in attempts:
            outcome = await call(pool, "connect", family=family, kind=kind, address=address)
            assert outcome.result != "sent", address
        # A datagram may be sent within the sandbox; it must not arrive outside.
        await call(pool, "connect", family=inet, kind=datagram, address=list(udp.getsockname()))
        with pytest.raises(BlockingIOError):
            udp.recv(10)
        with pytest.raises(BlockingIOError):
            tcp.accept()
    await still_works(pool)


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_ALG"])
async def test_sockets_past_the_network_namespace_are_refused(
    pool: ProcessToolPool, family: str
) -> None:
    if "seccomp" not in pool.confinement:
        pytest.skip("libseccomp.so.2 is not installed")
    number = int(getattr(socket, family))
    assert "not supported" in (await call(pool, "make_socket", family=number)).result


async def test_a_tool_that_kills_all_it_can_kills_itself_at_most(pool: ProcessToolPool) -> None:
    workers = pool.pids()
    outcome = await call(pool, "kill_everybody")
    assert len(outcome.result) == 9
    await still_works(pool)
    assert pool.pids() == workers


async def test_a_daemon_ends_with_its_call(pool: ProcessToolPool) -> None:
    assert (await call(pool, "leave_daemon")).result == "left"
    assert len((await call(pool, "processes")).result) == 2


async def test_the_private_folder_has_a_size_and_is_emptied(pool: ProcessToolPool) -> None:
    written = (await call(pool, "fill_folder")).result
    assert 0 < written <= LIMITS.folder_bytes
    assert (await call(pool, "listing", path=".")).result == []
    assert 0 < (await call(pool, "fill_folder")).result <= LIMITS.folder_bytes


@pytest.mark.parametrize("depth", [1, 2000])
async def test_a_tree_that_resists_removal_is_gone_for_the_next_call(
    pool: ProcessToolPool, depth: int
) -> None:
    assert (await call(pool, "resist_removal", depth=depth)).result == "done"
    assert (await call(pool, "listing", path=".")).result == []


async def test_a_huge_result_is_refused_with_its_size(pool: ProcessToolPool) -> None:
    request = ToolRequest(tool="hostile_tools:return_much", arguments={"size_bytes": 34 * MIB})
    with pytest.raises(ToolFailedError, match="returned 35651586 bytes|MemoryError|more memory"):
        await pool.run(request)
    assert len((await call(pool, "return_much", size_bytes=MIB)).result) == MIB


async def test_a_tool_cannot_reach_the_workers_pipe_or_memory(pool: ProcessToolPool) -> None:
    with pytest.raises(ToolFailedError, match="sent no report|sent more than"):
        await call(pool, "tamper")
    await still_works(pool)
    assert (await call(pool, "attach_to_parent")).result == -1
    for path in ("/proc/1/mem", "/proc/1/fd/0", "/proc/1/fd/3"):
        assert (await call(pool, "write", path=path)).result == "PermissionError"
        assert (await call(pool, "read", path=path)).result == "PermissionError"


async def test_what_a_tool_prints_blocks_nobody(pool: ProcessToolPool) -> None:
    assert (await call(pool, "shout", size_bytes=4 * MIB)).result == 4 * MIB


async def test_counts_the_cpu_time_of_children_that_nobody_waited_for(
    pool: ProcessToolPool,
) -> None:
    outcome = await call(pool, "burn_in_threads", wall_s=0.5)
    assert outcome.cpu_s > 0.1
    assert outcome.wall_s >= 0.5


async def test_unknown_tools_are_rejected_and_failures_named(pool: ProcessToolPool) -> None:
    with pytest.raises(PoolRejectedError, match="No tool"):
        await call(pool, "nothing")
    with pytest.raises(ToolFailedError, match="add raised TypeError"):
        await call(pool, "add", a=1, b="x")


async def test_killing_a_sandbox_from_outside_is_noticed(pool: ProcessToolPool) -> None:
    (worker,) = pool.pids()
    running = asyncio.create_task(call(pool, "hang"))
    await asyncio.sleep(0)
    os.killpg(worker, signal.SIGKILL)
    with pytest.raises(PoolUnavailableError, match="died; retry"):
        await running
    await still_works(pool)


async def test_cancelling_the_caller_kills_the_whole_sandbox(pool: ProcessToolPool) -> None:
    (worker,) = pool.pids()
    running = asyncio.create_task(call(pool, "hang"))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{worker}").exists()
    await still_works(pool)


async def test_closing_leaves_no_control_group_behind(sandbox: Sandbox) -> None:
    pool = ProcessToolPool(1, (TOOLS,), {}, sandbox)
    await pool.start()
    await still_works(pool)
    await pool.close()
    mine = f"steelyard-{os.getpid()}-*"
    left = [path for tree in Path("/sys/fs/cgroup").glob("*") for path in tree.glob(f"**/{mine}")]
    assert left == []
