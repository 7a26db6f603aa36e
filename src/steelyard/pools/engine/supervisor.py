"""Keeps one engine child alive, hands it requests, and takes its answers apart by request."""

import asyncio
import contextlib
import logging
import sys
from collections import deque
from collections.abc import Sequence

import msgspec

from steelyard.errors import (
    ConfigError,
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolUnavailableError,
)
from steelyard.pools.backend import LlmChunk, LlmRequest, ReplicaWatcher
from steelyard.pools.engine.frames import (
    Beat,
    Broken,
    Cancel,
    Done,
    Embed,
    FromChild,
    Load,
    LoadFailed,
    Piece,
    Ready,
    Rejected,
    Started,
    Submit,
    Vectors,
    read_from_child,
)
from steelyard.pools.engine.silence import Silence
from steelyard.pools.framing import pack_frame

_LOGGER = logging.getLogger("steelyard.pools")
_CHILD_MODULE = "steelyard.pools.engine.worker"
_HEALTHY_S = 60.0
# Chosen, not fitted: emulated on Arm, where a load took 45 to 90 s of CPU time, a replica that
# computed its first prompt was taken for dead after 30 s.
_LOADS = 3.0
# How often silence is looked at, in parts of the shortest one that counts.
_LOOKS = 4


class SupervisorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a replica is full, and when it counts as dead.

    Attributes:
        max_in_flight: Requests that run or wait; more are refused.
        load_timeout_s: Longest time to load the model.
        stall_s: Longest time without a sign of life; compiling a large JSON schema takes seconds.
            Neither counts time in which the child waits for a processor that others use. Where
            loading took long, up to the former: a large model on a slow machine takes as long for
            a batch, in which it is silent, too.
        backoff_s: Pause before the first restart; doubles with each one that follows soon.
        max_backoff_s: Longest pause before a restart.
    """

    max_in_flight: int = 96
    load_timeout_s: float = 120.0
    stall_s: float = 30.0
    backoff_s: float = 0.1
    max_backoff_s: float = 10.0

    def patience_s(self, load_s: float) -> float:
        """How long may a child be silent whose model took `load_s` to load?

        >>> limits = SupervisorLimits()
        >>> limits.patience_s(2.0), limits.patience_s(20.0), limits.patience_s(100.0)
        (30.0, 60.0, 120.0)
        """
        return max(self.stall_s, min(_LOADS * load_s, self.load_timeout_s))


# What a child is asked for: an answer, or the vectors of texts.
Asked = LlmRequest | tuple[str, ...]


class Flight:
    """A request in the child, as the supervisor sees it."""

    def __init__(self, request_id: int, request: Asked, now_s: float) -> None:
        self.request_id = request_id
        self.request = request
        self.since_s = now_s
        self.started = False
        # None ends the answer.
        self.inbox: asyncio.Queue[LlmChunk | Vectors | PoolError | None] = asyncio.Queue()

    @property
    def brings_schema(self) -> bool:
        """Whether it makes the engine compile a grammar."""
        request = self.request
        if not isinstance(request, LlmRequest):
            return False
        wants_json = request.json_object or request.json_schema is not None
        return wants_json or bool(request.tools)


class ReplicaSupervisor:
    """Supervises one engine child.

    Args:
        replica: Its number in the pool.
        load: What the child serves.
        limits: When it is full or dead.
        watch: Told when it went down or came back.
        command: Starts the child.
    """

    def __init__(
        self,
        replica: int,
        load: Load,
        limits: SupervisorLimits,
        watch: ReplicaWatcher | None = None,
        command: Sequence[str] = (sys.executable, "-m", _CHILD_MODULE),
    ) -> None:
        self._command = tuple(command)
        self._replica = replica
        self._load = load
        self._limits = limits
        self._watch = watch
        self._flights: dict[int, Flight] = {}
        self._next_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._came_up: asyncio.Future[None] | None = None
        self._is_up = False
        self._durations_s: deque[float] = deque(maxlen=32)
        self.load_s = 0.0
        self.context_tokens = self.cache_tokens = 0

    @property
    def is_up(self) -> bool:
        """Does the child take requests?"""
        return self._is_up

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def in_flight(self) -> int:
        """How many requests run or wait?"""
        return len(self._flights)

    async def start(self) -> None:
        """Start the child and wait until its model is loaded.

        Raises:
            ConfigError: The model cannot be loaded.
            PoolUnavailableError: The child died while loading.
        """
        self._came_up = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise())
        await self._came_up

    async def close(self) -> None:
        """Kill the child; requests in flight fail."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._fail_all(PoolUnavailableError(f"{self._name} was closed."))

    @property
    def _name(self) -> str:
        return f"Replica {self._replica} of the embedded engine"

    def submit(self, request: Asked) -> Flight:
        """Hand a request to the child: a question, or texts to turn into vectors.

        Raises:
            PoolUnavailableError: The child is down.
            PoolOverloadedError: Its queue is full.
            PoolRejectedError: The request is too deeply nested to be sent.
        """
        process = self._process
        if not self._is_up or process is None or process.stdin is None:
            raise PoolUnavailableError(f"{self._name} is down and being restarted; retry.")
        if len(self._flights) >= self._limits.max_in_flight:
            raise PoolOverloadedError(
                f"{self._name} has {len(self._flights)} requests, its limit; retry later.",
                retry_after_s=self._expected_wait_s(),
            )
        request_id = self._next_id
        self._next_id += 1
        try:
            frame = pack_frame(
                Submit(request_id, request)
                if isinstance(request, LlmRequest)
                else Embed(request_id, request)
            )
        except (RecursionError, TypeError, OverflowError, PoolProtocolError) as error:
            raise PoolRejectedError(f"The request is not JSON, or too deep: {error}.") from error
        flight = Flight(request_id, request, asyncio.get_running_loop().time())
        self._flights[request_id] = flight
        process.stdin.write(frame)
        return flight

    def release(self, flight: Flight) -> None:
        """Forget a request that ended, or cancel one that did not."""
        if self._flights.pop(flight.request_id, None) is None:
            return
        process = self._process
        if process is not None and process.stdin is not None and self._is_up:
            process.stdin.write(pack_frame(Cancel(flight.request_id)))

    def _expected_wait_s(self) -> float:
        if not self._durations_s:
            return 1.0
        mean_s = sum(self._durations_s) / len(self._durations_s)
        return max(0.1, mean_s / self._limits.max_in_flight)

    async def _supervise(self) -> None:
        backoff_s = self._limits.backoff_s
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            reason = await self._run_child()
            was_up, self._is_up = self._is_up, False
            self._fail_all(PoolUnavailableError(f"{self._name} {reason}; retry."))
            if was_up:
                _LOGGER.warning("%s %s; it is started again.", self._name, reason)
            if was_up and self._watch is not None:
                await self._watch(self._replica, False)
            if self._came_up is not None and not self._came_up.done():
                self._came_up.set_exception(PoolUnavailableError(f"{self._name} {reason}."))
                return
            if loop.time() - started_s > _HEALTHY_S:
                backoff_s = self._limits.backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, self._limits.max_backoff_s)

    async def _run_child(self) -> str:
        """Run one child to its end. Returns why it ended."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            # Out of processes or memory for now: the next attempt may do.
            return f"cannot be started ({error.strerror})"
        self._process = process
        try:
            return await self._read_frames(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            if process.stdin is not None:
                process.stdin.close()
            # Shielded: a cancelled close() must not leave a zombie behind.
            await asyncio.shield(process.wait())
            self._process = None

    async def _read_frames(self, process: asyncio.subprocess.Process) -> str:
        if process.stdin is None or process.stdout is None:
            return "has no pipes"
        process.stdin.write(pack_frame(self._load))
        limits = self._limits
        shortest_s = min(limits.load_timeout_s, limits.stall_s)
        silence = Silence(process.pid, limits.load_timeout_s, shortest_s / _LOOKS)
        watchdog = asyncio.create_task(self._kill_when_silent(process, silence))
        try:
            reason = await self._read_until_it_ends(process.pid, process.stdout, silence)
            return watchdog.result() if watchdog.done() else reason
        finally:
            watchdog.cancel()

    async def _kill_when_silent(self, process: asyncio.subprocess.Process, silence: Silence) -> str:
        await silence.lasts()
        self._blame_schema()
        # Ends the reader, too.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return f"gave no sign of life for {silence.patience_s:g} s and was killed"

    async def _read_until_it_ends(
        self, pid: int, stdout: asyncio.StreamReader, silence: Silence
    ) -> str:
        while True:
            try:
                frame = await read_from_child(stdout)
            except PoolProtocolError as error:
                return f"sent rubbish ({error})"
            silence.heard()
            if frame is None:
                return f"(process {pid}) died"
            if isinstance(frame, Broken):
                return f"broke: {frame.message}"
            if isinstance(frame, LoadFailed):
                if self._came_up is not None and not self._came_up.done():
                    self._came_up.set_exception(ConfigError(frame.message))
                return f"cannot load its model: {frame.message}"
            if isinstance(frame, Ready):
                silence.patience_s = self._limits.patience_s(frame.load_s)
                await self._ready(frame)
            else:
                self._dispatch(frame)

    async def _ready(self, frame: Ready) -> None:
        self.load_s = frame.load_s
        self.context_tokens, self.cache_tokens = frame.context_tokens, frame.cache_tokens
        self._is_up = True
        if self._came_up is not None and not self._came_up.done():
            self._came_up.set_result(None)
        if self._watch is not None:
            await self._watch(self._replica, True)

    def _dispatch(self, frame: FromChild) -> None:
        if isinstance(frame, Beat | Ready | LoadFailed | Broken):
            return
        flight = self._flights.get(frame.request_id)
        if flight is None:
            return  # cancelled while the frame was under way
        match frame:
            case Started():
                flight.started = True
            case Piece():
                flight.inbox.put_nowait(frame.chunk)
            case Vectors():
                flight.inbox.put_nowait(frame)
            case Rejected():
                del self._flights[frame.request_id]
                flight.inbox.put_nowait(PoolRejectedError(frame.message))
            case Done():
                del self._flights[frame.request_id]
                self._durations_s.append(asyncio.get_running_loop().time() - flight.since_s)
                flight.inbox.put_nowait(None)

    def _blame_schema(self) -> None:
        """Reject the one request whose grammar can have hung the engine, so it is not retried."""
        suspects = [f for f in self._flights.values() if f.brings_schema and not f.started]
        if len(suspects) == 1:
            del self._flights[suspects[0].request_id]
            reason = "The JSON schema kept the engine busy for too long."
            suspects[0].inbox.put_nowait(PoolRejectedError(f"{reason} Make it smaller."))

    def _fail_all(self, error: PoolError) -> None:
        for flight in self._flights.values():
            flight.inbox.put_nowait(error)
        self._flights.clear()
