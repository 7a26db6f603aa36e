"""What does confining tools cost? Start of a worker, and a call, by kind of sandbox.

python benchmarks/sandbox.py [--calls 500] [--starts 7]

The tool does nothing, so that a call is all overhead. The kinds take turns within a round of calls,
so that a busy machine is busy for all of them. No random numbers, hence no seed.
"""

import argparse
import asyncio
import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from steelyard.errors import SandboxUnavailableError
from steelyard.pools.backend import ToolRequest
from steelyard.pools.sandbox.confinement import SandboxLimits, SandboxMode
from steelyard.pools.sandbox.launch import Sandbox, find_sandbox
from steelyard.pools.tools import ProcessToolPool

MODES: tuple[SandboxMode, ...] = ("bubblewrap", "landlock")
REQUEST = ToolRequest(tool="nothing_tools:nothing", arguments={})


def write_tool(folder: Path) -> None:
    """The module of a tool that does nothing, for every user to read."""
    folder.chmod(0o755)
    text = "def nothing() -> None:\n    pass\n"
    (folder / "nothing_tools.py").write_text(text, encoding="utf-8")


async def pools(folder: str) -> dict[str, ProcessToolPool]:
    """One pool of one worker per kind that this machine can make; not started."""
    found = {"off": _pool(folder, None)}
    for mode in MODES:
        try:
            sandbox = await find_sandbox(mode, SandboxLimits(cores=2.0), (folder,))
        except SandboxUnavailableError as error:
            print(f"{mode}: {error}")
        else:
            found[mode] = _pool(folder, sandbox)
    return found


def _pool(folder: str, sandbox: Sandbox | None) -> ProcessToolPool:
    return ProcessToolPool(1, (folder,), dict(os.environ), sandbox)


async def start_s(pool: ProcessToolPool) -> float:
    """Seconds until a worker can take a call; the pool is stopped again."""
    began_s = time.perf_counter()
    await pool.start()
    took_s = time.perf_counter() - began_s
    await pool.close()
    return took_s


async def call_s(pool: ProcessToolPool) -> float:
    """Seconds from call to result."""
    began_s = time.perf_counter()
    await pool.run(REQUEST)
    return time.perf_counter() - began_s


async def main(starts: int, calls: int) -> None:
    """Measure and print one line per kind."""
    with tempfile.TemporaryDirectory() as folder:
        write_tool(Path(folder))
        by_kind = await pools(folder)
        begun: dict[str, list[float]] = {kind: [] for kind in by_kind}
        called: dict[str, list[float]] = {kind: [] for kind in by_kind}
        for _ in range(starts):
            for kind, pool in by_kind.items():
                begun[kind].append(await start_s(pool))
        for pool in by_kind.values():
            await pool.start()
            await pool.run(REQUEST)
        for _ in range(calls):
            for kind, pool in by_kind.items():
                called[kind].append(await call_s(pool))
        for kind, pool in by_kind.items():
            tenths = statistics.quantiles(called[kind], n=20)
            print(
                f"{kind:12s} start {1000 * statistics.median(begun[kind]):6.1f} ms"
                f"  call p50 {1000 * statistics.median(called[kind]):6.2f} ms"
                f"  p95 {1000 * tenths[-1]:6.2f} ms  {pool.confinement}"
            )
            await pool.close()


def machine() -> str:
    """Machine, kernel, versions and date, for the record."""
    program = shutil.which("bwrap")
    version = "no bubblewrap"
    if program is not None:
        asked = subprocess.run(  # noqa: S603 - a program of the machine's own
            [program, "--version"], capture_output=True, text=True, check=False
        )
        version = asked.stdout.strip()
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python "
        f"{platform.python_version()}, steelyard {importlib.metadata.version('steelyard')}, "
        f"{version}, load {os.getloadavg()[0]:.1f}, {dt.datetime.now(dt.UTC):%F}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--calls", type=int, default=500)
    given = parser.parse_args()
    print(machine())
    asyncio.run(main(given.starts, given.calls))
