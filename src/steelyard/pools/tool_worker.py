"""Main program of a tool worker: `python -m steelyard.pools.tool_worker`.

Runs one tool at a time, named `module:function`, and measures what it used.
"""

import asyncio
import importlib
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from steelyard.pools.backend import ToolOutcome
from steelyard.pools.child import live_with_parent, take_pipes
from steelyard.pools.framing import MAX_FRAME_BYTES, pack_frame, read_frame

_MAX_MESSAGE_CHARS = 2000
_BYTES_PER_KIB = 1024


class ToolJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to run; `python_paths` are put in front of `sys.path`.

    In a sandbox, `timeout_s` is kept inside; elsewhere the pool keeps it.
    """

    tool: str
    arguments: dict[str, Any]
    memory_bytes: int
    timeout_s: float
    python_paths: tuple[str, ...] = ()


class ToolReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended: `outcome` when it is `ok`, `message` otherwise.

    The last three statuses come from sandboxes alone. After a report that is `last`, the worker
    ends.
    """

    status: Literal["ok", "unknown_tool", "failed", "timeout", "memory", "killed"]
    message: str = ""
    outcome: ToolOutcome | None = None
    last: bool = False


def main() -> None:
    """Run tools until the pool closes the pipe."""
    live_with_parent()
    pipe_in, pipe_out = take_pipes()
    # Tells the pool that this worker is warm.
    _send(pipe_out, ToolReport(status="ok"))
    while (body := read_frame(pipe_in)) is not None:
        _send(pipe_out, _run(msgspec.msgpack.decode(body, type=ToolJob)))


def _send(pipe_out: BinaryIO, report: ToolReport) -> None:
    pipe_out.write(pack_frame(report))
    pipe_out.flush()


def _run(job: ToolJob) -> ToolReport:
    tool = load_tool(job)
    return tool if isinstance(tool, ToolReport) else run_tool(job, tool)


def load_tool(job: ToolJob) -> Callable[..., Any] | ToolReport:
    """Which function is the tool? A report of the failure when it cannot be loaded."""
    for path in job.python_paths:
        if path not in sys.path:
            sys.path.insert(0, path)
    try:
        return _find(job.tool)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        message = f"No tool {job.tool!r}: {error}. Name it module:function."
        return ToolReport(status="unknown_tool", message=message)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the executor's attempt boundary
        message = f"Loading {job.tool} raised {type(error).__name__}: {error}"
        return ToolReport(status="failed", message=message[:_MAX_MESSAGE_CHARS])


def run_tool(job: ToolJob, tool: Callable[..., Any]) -> ToolReport:
    """Call a tool in this process, and report what it returned and used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        if job.memory_bytes > 0:
            limit = _address_space_bytes() + job.memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        return _call(job, tool)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the executor's attempt boundary
        message = f"{job.tool} raised {type(error).__name__}: {error}"
        return ToolReport(status="failed", message=message[:_MAX_MESSAGE_CHARS])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _find(tool: str) -> Callable[..., Any]:
    module_name, _, function_name = tool.partition(":")
    if not module_name or not function_name:
        raise ValueError("it has no ':'")
    target: object = importlib.import_module(module_name)
    for part in function_name.split("."):
        target = getattr(target, part)
    if not callable(target):
        raise TypeError("it is not callable")
    return target


def _call(job: ToolJob, function: Callable[..., Any]) -> ToolReport:
    _reset_peak_memory()
    cpu_s, wall_s = _cpu_s(), time.monotonic()
    result = function(**job.arguments)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    cpu_s, wall_s = _cpu_s() - cpu_s, time.monotonic() - wall_s
    # Through JSON: what cannot be stored in the event log must fail here, not there.
    encoded = msgspec.json.encode(result)
    if len(encoded) > MAX_FRAME_BYTES // 2:
        message = f"{job.tool} returned {len(encoded)} bytes; at most {MAX_FRAME_BYTES // 2}."
        return ToolReport(status="failed", message=message)
    outcome = ToolOutcome(
        result=msgspec.json.decode(encoded),
        cpu_s=cpu_s,
        wall_s=wall_s,
        max_memory_bytes=_peak_memory_bytes(),
    )
    return ToolReport(status="ok", outcome=outcome)


def _cpu_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _address_space_bytes() -> int:
    if sys.platform != "linux":
        return 0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _reset_peak_memory() -> None:
    # proc(5): writing 5 resets the peak to the present value, so the peak is this call's own.
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_bytes() -> int:
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _BYTES_PER_KIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _BYTES_PER_KIB


if __name__ == "__main__":
    main()
