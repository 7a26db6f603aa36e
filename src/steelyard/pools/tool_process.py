"""One worker process of a tool pool: started, asked, killed, and started again."""

import asyncio
import contextlib
import os
import signal

import msgspec

from steelyard.errors import PoolProtocolError, PoolUnavailableError
from steelyard.pools.framing import receive_frame
from steelyard.pools.launch import Launch
from steelyard.pools.tool_worker import ToolReport

_KEPT_MESSAGE_BYTES = 4096
_READ_BYTES = 65536


class ToolProcess:
    """One worker process, started again when it was killed or died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._launch: Launch | None = None
        self._messages: asyncio.Task[None] | None = None
        self._last_message = b""
        self._kills = 0
        self.layers = ""

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, launch: Launch) -> None:
        """Start the process and wait until it can take a call.

        Raises:
            PoolUnavailableError: It died while starting.
        """
        await self.kill()
        self._launch, self._last_message = launch, b""
        self._process = await asyncio.create_subprocess_exec(
            *launch.command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A confined tool gets no descriptor of this process: it could open the file behind it.
            stderr=asyncio.subprocess.PIPE if launch.confined else None,
            env=launch.environment,
            # A group of its own, so that what a tool has started is killed with it.
            start_new_session=True,
        )
        if launch.confined:
            self._messages = asyncio.create_task(self._read_messages(self._process))
        ready = await self._receive()
        if ready is None:
            await self.kill()
            last = self._last_message.decode(errors="replace").strip().splitlines()[-1:]
            reason = last[0] if last else "see its messages"
            raise PoolUnavailableError(f"A tool worker died while starting: {reason}.")
        self.layers = ready.message
        self._kills = 0 if launch.cgroup is None else launch.cgroup.kills()

    def limit_memory(self, memory_bytes: int) -> None:
        """Limit the memory of the next call and its children together, where that can be."""
        if self._launch is not None and self._launch.cgroup is not None:
            self._launch.cgroup.limit_memory(memory_bytes)

    async def exchange(self, job: bytes) -> ToolReport | None:
        """Send a job and wait for its report; None when the process died."""
        process = self._process
        if process is None or process.stdin is None:
            return None
        process.stdin.write(job)
        report = await self._receive()
        return self._with_reason(report)

    def _with_reason(self, report: ToolReport | None) -> ToolReport | None:
        if self._launch is None or self._launch.cgroup is None:
            return report
        kills, self._kills = self._kills, self._launch.cgroup.kills()
        memory = ToolReport(status="memory")
        if report is None:
            # The module's top level runs in the worker itself, which dies with it.
            return msgspec.structs.replace(memory, last=True) if self._kills > kills else None
        return memory if report.status == "killed" and self._kills > kills else report

    async def _receive(self) -> ToolReport | None:
        process = self._process
        if process is None or process.stdout is None:
            return None
        body = await receive_frame(process.stdout)
        try:
            return None if body is None else msgspec.msgpack.decode(body, type=ToolReport)
        except msgspec.DecodeError as error:
            raise PoolProtocolError(f"A tool worker sent no report: {error}.") from error

    async def _read_messages(self, process: asyncio.subprocess.Process) -> None:
        """Take what tools print, so that none waits for it, and keep the end of it."""
        while process.stderr is not None and (piece := await process.stderr.read(_READ_BYTES)):
            self._last_message = (self._last_message + piece)[-_KEPT_MESSAGE_BYTES:]

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
        await asyncio.shield(self._bury(process))

    async def _bury(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        messages, self._messages = self._messages, None
        if messages is not None:
            await messages
        launch, self._launch = self._launch, None
        if launch is not None:
            await launch.clean_up()
