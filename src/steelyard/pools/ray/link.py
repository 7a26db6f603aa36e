"""The gateway's end of a Ray pool: its driver, a child process that is started again if it ends."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

import msgspec

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolProtocolError,
    PoolRejectedError,
    PoolUnavailableError,
)
from steelyard.pools.framing import pack_frame, receive_frame
from steelyard.pools.ray.frames import (
    Answer,
    Ask,
    Beat,
    Chunk,
    Drop,
    FromDriver,
    Moved,
    Open,
    Opened,
    OpenFailed,
    Scale,
)

DRIVER: tuple[str, ...] = (sys.executable, "-m", "steelyard.pools.ray.driver")
# The driver beats every two seconds; connecting to a cluster takes long without the loop.
_STALL_S = 60.0
_BACKOFF_S, _MAX_BACKOFF_S = 1.0, 30.0


class Flight:
    """A request in the pool; `inbox` gets its answers, or why there are none."""

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self.inbox: asyncio.Queue[Answer | PoolError] = asyncio.Queue()


class DriverLink:
    """Supervises the driver of one pool.

    Args:
        opened: What the pool is.
        moved: Called with every change of a replica.
        command: Starts the driver.
    """

    def __init__(
        self,
        opened: Open,
        moved: Callable[[Moved], None],
        command: Sequence[str] = DRIVER,
    ) -> None:
        self._opened = opened
        self._moved = moved
        self._command = tuple(command)
        self._wanted = opened.replicas
        self._up: set[int] = set()
        self._flights: dict[int, Flight] = {}
        self._next_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._came_up: asyncio.Future[int] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the driver; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> int:
        """Start the driver and wait until the first replicas are up.

        Returns:
            Context of the engines in tokens; 0 for tools.

        Raises:
            ConfigError: No cluster answers, or no node of it will do.
            PoolUnavailableError: The driver died.
        """
        self._came_up = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise())
        return await self._came_up

    async def close(self) -> None:
        """End the driver, and with it its actors; requests in flight fail."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fail_all(PoolUnavailableError(f"pool {self._opened.pool} was closed"))

    def ask(self, make: Callable[[int], Ask]) -> Flight:
        """Send a request.

        Args:
            make: Makes its frame of the number that it gets.

        Raises:
            PoolUnavailableError: The driver is down.
            PoolRejectedError: The request cannot be sent.
        """
        flight = Flight(self._next_id)
        self._next_id += 1
        try:
            frame = pack_frame(make(flight.request_id))
        except (RecursionError, TypeError, OverflowError, PoolProtocolError) as error:
            raise PoolRejectedError(f"The request cannot be sent: {error}.") from error
        if not self._write(frame):
            raise PoolUnavailableError(
                f"the Ray driver of pool {self._opened.pool} is down and being started; retry"
            )
        self._flights[flight.request_id] = flight
        return flight

    def release(self, flight: Flight) -> None:
        """Forget a request that ended, or stop one that did not."""
        if self._flights.pop(flight.request_id, None) is not None:
            self._write(pack_frame(Drop(flight.request_id)))

    def scale(self, replicas: int) -> None:
        """Have so many replicas, also after the driver was started again."""
        self._wanted = replicas
        self._write(pack_frame(Scale(replicas)))

    def _write(self, frame: bytes) -> bool:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return False
        process.stdin.write(frame)
        return True

    async def _supervise(self) -> None:
        backoff_s = _BACKOFF_S
        while True:
            reason = await self._run_driver()
            name = f"the Ray driver of pool {self._opened.pool}"
            self._fail_all(PoolUnavailableError(f"{name} {reason}; retry"))
            for replica in sorted(self._up):
                self._moved(Moved(replica=replica, up=False, reason=f"{name} {reason}"))
            if self._up:
                backoff_s = _BACKOFF_S
            self._up.clear()
            if self._came_up is not None and not self._came_up.done():
                self._came_up.set_exception(PoolUnavailableError(f"{name} {reason}"))
                return
            await asyncio.sleep(backoff_s)
            backoff_s = min(2.0 * backoff_s, _MAX_BACKOFF_S)

    async def _run_driver(self) -> str:
        """Run one driver to its end. Returns why it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        self._process = process
        try:
            came_up = self._came_up
            again = came_up is not None and came_up.done()
            opened = msgspec.structs.replace(self._opened, replicas=self._wanted, again=again)
            self._write(pack_frame(opened))
            return await self._read_frames(process)
        finally:
            self._process = None
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # Shielded: a cancelled close() must not leave a zombie behind.
            await asyncio.shield(process.wait())

    async def _read_frames(self, process: asyncio.subprocess.Process) -> str:
        if process.stdout is None:
            return "has no pipes"
        while True:
            try:
                async with asyncio.timeout(_STALL_S):
                    body = await receive_frame(process.stdout)
                if body is None:
                    return f"(process {process.pid}) ended"
                self._take(msgspec.msgpack.decode(body, type=FromDriver))
            except TimeoutError:
                return f"gave no sign of life for {_STALL_S:g} s and was killed"
            except (PoolProtocolError, msgspec.MsgspecError) as error:
                return f"sent rubbish ({error})"

    def _take(self, told: FromDriver) -> None:
        came_up = self._came_up
        if isinstance(told, Moved):
            (self._up.add if told.up else self._up.discard)(told.replica)
            self._moved(told)
        elif isinstance(told, Opened):
            if came_up is not None and not came_up.done():
                came_up.set_result(told.context_tokens)
        elif isinstance(told, OpenFailed):
            if came_up is not None and not came_up.done():
                kind = ConfigError if told.fixable else PoolUnavailableError
                came_up.set_exception(kind(told.message))
        elif not isinstance(told, Beat):
            ends = not isinstance(told, Chunk)
            find = self._flights.pop if ends else self._flights.get
            flight = find(told.request_id, None)
            # None: dropped while the answer was under way.
            if flight is not None:
                flight.inbox.put_nowait(told)

    def _fail_all(self, error: PoolError) -> None:
        for flight in self._flights.values():
            flight.inbox.put_nowait(error)
        self._flights.clear()
