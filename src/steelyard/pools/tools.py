"""Tools in warm worker processes, with a time limit, a memory limit and measured use.

With a sandbox, a tool sees its own folder and nothing else. Without one, this is process isolation
with limits: a tool runs with the rights of this user, and reaches the file system, the network and
whatever is in the environment it is given; it cannot crash or block the caller, outlive its time
limit, or take more memory than allowed.
"""

import asyncio
from collections.abc import Mapping

from steelyard.errors import (
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolOutcome, ToolRequest
from steelyard.pools.framing import pack_frame
from steelyard.pools.launch import Launch, open_launch
from steelyard.pools.sandbox.launch import Sandbox
from steelyard.pools.tool_process import ToolProcess
from steelyard.pools.tool_worker import ToolJob, ToolReport

_CHILD_MODULE = "steelyard.pools.tool_worker"
# A sandbox keeps the time limit inside, and its worker stays warm. This is how much later the whole
# sandbox is killed if it does not.
_GRACE_S = 2.0


class ProcessToolPool:
    """Runs tools in N worker processes, one tool per worker at a time.

    Args:
        slots: Number of workers; further calls wait.
        python_paths: Folders put in front of the workers' `sys.path`.
        environment: Environment of the workers; None hands on this process's own, secrets
            included. A sandbox hands on its language and time zone alone.
        sandbox: What confines the workers; None for nothing.
    """

    def __init__(
        self,
        slots: int,
        python_paths: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._slots = slots
        self._sandbox = sandbox
        self._python_paths = python_paths
        self._environment = environment
        # None stands for a closed pool.
        self._idle: asyncio.Queue[ToolProcess | None] = asyncio.Queue()
        self._workers: list[ToolProcess] = []

    @property
    def slots(self) -> int:
        """How many tools run at once?"""
        return self._slots

    @property
    def confinement(self) -> str:
        """Which layers confine the workers? Empty for none."""
        return next((worker.layers for worker in self._workers), "")

    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are alive."""
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    async def start(self) -> None:
        """Start the workers; return when all are warm.

        Raises:
            PoolUnavailableError: A worker died while starting.
        """
        self._idle = asyncio.Queue()
        self._workers = [ToolProcess() for _ in range(self._slots)]
        await asyncio.gather(*(worker.start(self._launch()) for worker in self._workers))
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
                await worker.start(self._launch())
            return _outcome(await self._exchange(worker, request, job), request)
        finally:
            if worker in self._workers:
                idle.put_nowait(worker)

    def _launch(self) -> Launch:
        if self._sandbox is None:
            return open_launch(_CHILD_MODULE, self._environment)
        return self._sandbox.launch(self._environment or {})

    def _job(self, request: ToolRequest) -> bytes:
        job = ToolJob(
            tool=request.tool,
            arguments=request.arguments,
            memory_bytes=request.memory_bytes,
            timeout_s=request.timeout_s,
            python_paths=self._python_paths,
        )
        try:
            return pack_frame(job)
        except (TypeError, RecursionError, OverflowError, PoolProtocolError) as error:
            raise PoolRejectedError(
                f"The arguments of tool {request.tool} cannot be sent: {error}."
            ) from error

    async def _limit_memory(
        self, worker: ToolProcess, request: ToolRequest, most_bytes: int
    ) -> None:
        try:
            worker.limit_memory(min(request.memory_bytes or most_bytes, most_bytes))
        except OSError as error:
            await worker.kill()
            raise PoolUnavailableError(
                f"The memory of tool {request.tool} cannot be limited: {error}; retry."
            ) from error

    async def _exchange(self, worker: ToolProcess, request: ToolRequest, job: bytes) -> ToolReport:
        limit_s = request.timeout_s
        if self._sandbox is not None:
            await self._limit_memory(worker, request, self._sandbox.limits.memory_bytes)
            limit_s += _GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                report = await worker.exchange(job)
        except TimeoutError as error:
            await worker.kill()
            raise _too_slow(request) from error
        except (asyncio.CancelledError, PoolProtocolError):
            await worker.kill()
            raise
        if report is None:
            await worker.kill()
            raise PoolUnavailableError(f"The worker of tool {request.tool} died; retry.")
        if report.last:
            await worker.kill()
        return report


def _outcome(report: ToolReport, request: ToolRequest) -> ToolOutcome:
    if report.status == "unknown_tool":
        raise PoolRejectedError(report.message)
    if report.status == "timeout":
        raise _too_slow(request)
    if report.status == "memory":
        raise ToolFailedError(f"{request.tool} used more memory than it may and was killed")
    if report.status != "ok" or report.outcome is None:
        raise ToolFailedError(report.message)
    return report.outcome


def _too_slow(request: ToolRequest) -> PoolTimeoutError:
    return PoolTimeoutError(
        f"Tool {request.tool} ran longer than {request.timeout_s:g} s and was killed."
    )
