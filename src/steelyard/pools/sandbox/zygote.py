"""Process 1 of a sandbox: loads a tool's module once, then forks one process per call.

So a call starts warm, and yet nothing of it is left behind: when it ends, every process in the
namespace is killed and the private folder is emptied. What a call sends is not trusted; what it
used is measured here. The top level of a tool's module runs in this process, so the module itself
is as trusted as its operator; what its functions do is not.
"""

import contextlib
import ctypes
import math
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Never

import msgspec

from steelyard.pools.backend import ToolOutcome
from steelyard.pools.child import take_pipes
from steelyard.pools.framing import MAX_FRAME_BYTES, pack_frame, read_frame
from steelyard.pools.sandbox.confinement import FOLDER, SHARED_MEMORY, Confinement
from steelyard.pools.sandbox.watch import Ending, watch_call
from steelyard.pools.tool_worker import ToolJob, ToolReport, load_tool, run_tool

_PR_SET_DUMPABLE = 4
_OOM_FIRST = "1000"
_BYTES_PER_KIB = 1024


class _Usage:
    """CPU time and peak memory of all processes that a call had."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.max_memory_bytes = 0
        self.status = 0

    def add(self, used: resource.struct_rusage) -> None:
        self.cpu_s += [used.ru_utime, used.ru_stime]
        self.max_memory_bytes = max(self.max_memory_bytes, used.ru_maxrss * _BYTES_PER_KIB)


def serve(confinement: Confinement, layers: str) -> None:
    """Run calls until the pool closes the pipe.

    Args:
        confinement: What a call may use.
        layers: What confines this process, told to the pool.
    """
    # Killing "every process" is meant for this namespace alone.
    if os.getpid() != 1:
        raise RuntimeError("a zygote must be process 1 of its namespace")
    # Calls run as the same user: they must not reach into this process and its pipes.
    _set_dumpable(0)
    pipe_in, pipe_out = take_pipes()
    _send(pipe_out, ToolReport(status="ok", message=layers))
    while (body := read_frame(pipe_in)) is not None:
        job = msgspec.msgpack.decode(body, type=ToolJob)
        report = _serve_one(job, confinement, pipe_in, pipe_out)
        try:
            for folder in (FOLDER, SHARED_MEMORY):
                _empty(Path(folder))
        except (OSError, RecursionError):
            # A tree made to resist: it goes with this sandbox.
            _send(pipe_out, msgspec.structs.replace(report, last=True))
            return
        _send(pipe_out, report)


def _send(pipe_out: BinaryIO, report: ToolReport) -> None:
    pipe_out.write(pack_frame(report))
    pipe_out.flush()


def _serve_one(
    job: ToolJob, confinement: Confinement, pipe_in: BinaryIO, pipe_out: BinaryIO
) -> ToolReport:
    started_s = time.monotonic()
    tool = load_tool(job)
    if isinstance(tool, ToolReport):
        _end_all(None)
        return tool
    read_end, write_end = os.pipe()
    call = os.fork()
    if call == 0:
        for other in (pipe_in.fileno(), pipe_out.fileno(), read_end):
            os.close(other)
        _run_call(job, tool, confinement, write_end)
    os.close(write_end)
    try:
        sum_limit = _memory_limit(job, confinement) if confinement.sum_memory else 0
        ending, body = watch_call(
            call, read_end, pipe_in.fileno(), started_s + job.timeout_s, sum_limit
        )
    finally:
        os.close(read_end)
    used = _end_all(call)
    return _report(job, ending, body, used, time.monotonic() - started_s)


def _run_call(
    job: ToolJob, tool: Callable[..., Any], confinement: Confinement, write_end: int
) -> Never:
    status = 1
    try:
        _set_dumpable(1)
        Path("/proc/self/oom_score_adj").write_text(_OOM_FIRST, encoding="ascii")
        cpu_s = math.ceil(job.timeout_s * max(1.0, confinement.limits.cores)) + 1
        # The first limit is a signal that names its reason, the second one kills.
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        memory_bytes = job.memory_bytes
        if confinement.sum_memory:
            memory_bytes = _memory_limit(job, confinement)
        job = msgspec.structs.replace(job, memory_bytes=memory_bytes)
        frame = memoryview(pack_frame(run_tool(job, tool)))
        while frame:
            frame = frame[os.write(write_end, frame) :]
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def _memory_limit(job: ToolJob, confinement: Confinement) -> int:
    limit = confinement.limits.memory_bytes
    return min(limit, job.memory_bytes) if job.memory_bytes else limit


def _end_all(call: int | None) -> _Usage:
    """Kill every process but this one, and wait until the last is gone."""
    usage = _Usage()
    while True:
        # It fails when none is left but the dead.
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            pid, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            return usage
        usage.add(used)
        if pid == call:
            usage.status = status


def _report(job: ToolJob, ending: Ending, body: bytes, used: _Usage, wall_s: float) -> ToolReport:
    if ending == "timeout" or ending == "memory":  # noqa: PLR1714 - types narrow so
        return ToolReport(status=ending)
    if ending == "too_long":
        message = f"{job.tool} sent more than {MAX_FRAME_BYTES} bytes and was killed"
        return ToolReport(status="failed", message=message)
    if not body:
        return _without_result(job, used)
    return _checked(job, body, used, wall_s)


def _checked(job: ToolJob, body: bytes, used: _Usage, wall_s: float) -> ToolReport:
    try:
        report = msgspec.msgpack.decode(body, type=ToolReport)
    except msgspec.DecodeError as error:
        return ToolReport(status="failed", message=f"{job.tool} sent no report: {error}")
    if report.status != "ok" or report.outcome is None:
        return ToolReport(status="failed", message=report.message)
    outcome = ToolOutcome(
        result=report.outcome.result,
        cpu_s=math.fsum(used.cpu_s),
        wall_s=wall_s,
        max_memory_bytes=used.max_memory_bytes,
    )
    return ToolReport(status="ok", outcome=outcome)


def _without_result(job: ToolJob, used: _Usage) -> ToolReport:
    code = os.waitstatus_to_exitcode(used.status)
    if code == -signal.SIGKILL:
        return ToolReport(status="killed", message=f"{job.tool} was killed")
    if code == -signal.SIGXCPU:
        message = f"{job.tool} used up its CPU time and was killed"
    elif code < 0:
        message = f"{job.tool} died of {signal.Signals(-code).name}"
    else:
        message = f"{job.tool} ended with status {code} and returned nothing"
    return ToolReport(status="failed", message=message)


def _empty(folder: Path) -> None:
    """Remove all that a call has written."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_open_up)
        else:
            Path(entry.path).unlink()


def _open_up(_function: object, path: str, _error: object) -> None:
    # A folder that forbids its owner to look inside: allow it and try again, once.
    Path(path).parent.chmod(0o700)
    Path(path).chmod(0o700, follow_symlinks=False)
    shutil.rmtree(path)


def _set_dumpable(value: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)
