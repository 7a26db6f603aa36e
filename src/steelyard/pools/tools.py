"""Tools in warm worker processes, with a time limit, a memory limit and measured use.

This is process isolation with limits, not a sandbox: a tool runs with the rights of this user, and
reaches the file system, the network and whatever is in the environment it is given. It cannot
crash or block the caller, outlive its time limit, or take more memory than allowed.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping

import msgspec

from steelyard.errors import (
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.framing import pack_frame, receive_frame
from steelyard.pools.tool_worker import ToolJob, ToolReport

_CHILD_MODULE = "steelyard.pools.tool_worker"


class ProcessToolPool:
    """Runs tools in N worker processes, one tool per worker at a time.

    Args:
        slots: Number of workers; further calls wait.
        python_paths: Folders put in front of the workers' `sys.path`.
        environment: Environment of the workers; None hands on this process's own, secrets
            included.
    """

    def __init__(
        self,
        slots: int,
        python_paths: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._slots = slots
        self._python_paths = python_paths
        self._environment = environment
        # None stands for a closed pool.
        self._idle: asyncio.Queue[_Worker | None] = asyncio.Queue()
        self._workers: list[_Worker] = []

    @property
    def slots(self) -> int:
        """How many tools run at once?"""
        return self._slots

    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def start(self) -> None:
        """Start the workers; return when all are warm.

        Raises:
            PoolUnavailableError: A worker died while starting.
        """
        self._idle = asyncio.Queue()
        self._workers = [_Worker() for _ in range(self._slots)]
        await asyncio.gather(*(worker.start(self._environment) for worker in self._workers))
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        """Kill the workers; calls in flight fail with PoolUnavailableError."""
        workers, self._workers = self._workers, []
        self._idle.put_nowait(None)
        await asyncio.gather(*(worker.kill() for worker in workers))

    async def run(self, request: ToolRequest) -> ToolOutcome:
        """Run a tool and wait for its result; cancelling the awaiting task kills the call.

        `timeout_s` counts from the moment a worker is free.

        Raises:
            PoolRejectedError: No such tool, or arguments that are not JSON.
            ToolFailedError: The tool raised, or returned what is not JSON.
            PoolTimeoutError: The tool took longer than `timeout_s`.
            PoolUnavailableError: The worker died, or the pool is not started.
        """
        job = self._job(request)
        if not self._workers:
            raise PoolUnavailableError("The tool pool is not started.")
        idle = self._idle
        worker = await idle.get()
        if worker is None:
            idle.put_nowait(None)
            raise PoolUnavailableError("The tool pool was closed.")
        try:
            if worker.pid is None:
                await worker.start(self._environment)
            return _outcome(await self._exchange(worker, request, job))
        finally:
            if worker in self._workers:
                idle.put_nowait(worker)

    def _job(self, request: ToolRequest) -> bytes:
        job = ToolJob(
            tool=request.tool,
            arguments=request.arguments,
            memory_bytes=request.memory_bytes,
            python_paths=self._python_paths,
        )
        try:
            return pack_frame(job)
        except (TypeError, RecursionError, OverflowError, PoolProtocolError) as error:
            raise PoolRejectedError(
                f"The arguments of tool {request.tool} cannot be sent: {error}."
            ) from error

    async def _exchange(self, worker: "_Worker", request: ToolRequest, job: bytes) -> ToolReport:
        try:
            async with asyncio.timeout(request.timeout_s):
                report = await worker.exchange(job)
        except TimeoutError as error:
            await worker.kill()
            raise PoolTimeoutError(
                f"Tool {request.tool} ran longer than {request.timeout_s:g} s and was killed."
            ) from error
        except (asyncio.CancelledError, PoolProtocolError):
            await worker.kill()
            raise
        if report is None:
            await worker.kill()
            raise PoolUnavailableError(f"The worker of tool {request.tool} died; retry.")
        return report


class _Worker:
    """One worker process, started again when it was killed or died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, environment: Mapping[str, str] | None) -> None:
        """Start the process and wait until it can take a call.

        Raises:
            PoolUnavailableError: It died while starting.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _CHILD_MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            # A group of its own, so that what a tool has started is killed with it.
            start_new_session=True,
        )
        if await self._receive() is None:
            await self.kill()
            raise PoolUnavailableError("A tool worker died while starting; see its messages.")

    async def exchange(self, job: bytes) -> ToolReport | None:
        """Send a job and wait for its report; None when the process died."""
        process = self._process
        if process is None or process.stdin is None:
            return None
        process.stdin.write(job)
        return await self._receive()

    async def _receive(self) -> ToolReport | None:
        process = self._process
        if process is None or process.stdout is None:
            return None
        body = await receive_frame(process.stdout)
        try:
            return None if body is None else msgspec.msgpack.decode(body, type=ToolReport)
        except msgspec.DecodeError as error:
            raise PoolProtocolError(f"A tool worker sent no report: {error}.") from error

    async def kill(self) -> None:
        """Kill the process and what its tool has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()
        # Shielded: a cancelled call must not leave a zombie behind.
        await asyncio.shield(process.wait())


def _outcome(report: ToolReport) -> ToolOutcome:
    if report.status == "unknown_tool":
        raise PoolRejectedError(report.message)
    if report.status == "failed" or report.outcome is None:
        raise ToolFailedError(report.message)
    return report.outcome
