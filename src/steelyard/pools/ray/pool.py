"""A Ray cluster's nodes as a pool: of engines, or of tool workers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from steelyard.errors import (
    PoolError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    SteelyardBugError,
)
from steelyard.pools.backend import (
    Embeddings,
    LlmChunk,
    LlmRequest,
    ReplicaWatcher,
    ToolOutcome,
    ToolRequest,
)
from steelyard.pools.elastic import ElasticWatch
from steelyard.pools.ray.frames import (
    Ask,
    AskLlm,
    AskTool,
    AskVectors,
    Chunk,
    Done,
    EngineJob,
    Failed,
    Moved,
    Open,
    ToolsJob,
    error_of,
)
from steelyard.pools.ray.link import DRIVER, DriverLink, Flight


class _RayPool:
    """What both kinds share: replicas that come and go.

    Args:
        opened: What the pool is, with the least number of replicas.
        max_replicas: The most.
        watch: Told of replicas.
        driver: Starts the driver.
    """

    def __init__(
        self,
        opened: Open,
        max_replicas: int,
        watch: ElasticWatch,
        driver: Sequence[str] = DRIVER,
    ) -> None:
        self._opened = opened
        self._max_replicas = max_replicas
        self._watch = watch
        self._link = DriverLink(opened, self._moved, driver)
        self._moves: asyncio.Queue[Moved] = asyncio.Queue()
        self._telling: asyncio.Task[None] | None = None
        self._context_tokens = 0

    @property
    def bounds(self) -> tuple[int, int]:
        """How many replicas are there at least, and at most?"""
        return self._opened.replicas, self._max_replicas

    @property
    def replica_slots(self) -> int:
        """How many steps run at once on one replica?"""
        job = self._opened.job
        return job.slots if isinstance(job, ToolsJob) else job.concurrency_cap

    @property
    def driver_pid(self) -> int | None:
        """Process id of the driver; None while there is none."""
        return self._link.pid

    def scale(self, replicas: int) -> None:
        """Have so many replicas, as soon as may be."""
        self._link.scale(min(max(replicas, self.bounds[0]), self.bounds[1]))

    async def close(self) -> None:
        """End the actors; requests in flight fail with PoolUnavailableError."""
        await self._link.close()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    async def _start(self) -> None:
        least, most = self.bounds
        for replica in range(least, most):
            await self._watch.told(replica, up=False, reason="not started yet", rented=False)
        self._telling = asyncio.create_task(self._tell())
        try:
            self._context_tokens = await self._link.start()
        except BaseException:
            await self.close()
            raise

    def _moved(self, moved: Moved) -> None:
        self._moves.put_nowait(moved)

    async def _tell(self) -> None:
        while True:
            moved = await self._moves.get()
            await self._watch.told(
                moved.replica,
                up=moved.up,
                reason=moved.reason,
                draining=moved.draining,
                rented=moved.rented,
            )

    async def _answers(
        self, make: Callable[[int], Ask], longest_s: float | None
    ) -> AsyncGenerator[Chunk | Done, None]:
        """What a request is answered, to its end; closing this stops the work."""
        until_s = None if longest_s is None else asyncio.get_running_loop().time() + longest_s
        flight = self._link.ask(make)
        try:
            ended = False
            while not ended:
                answer = await self._next(flight, until_s)
                ended = isinstance(answer, Done)
                yield answer
        finally:
            self._link.release(flight)

    async def _next(self, flight: Flight, until_s: float | None) -> Chunk | Done:
        try:
            async with asyncio.timeout_at(until_s):
                answer = await flight.inbox.get()
        except TimeoutError as error:
            raise PoolTimeoutError(
                f"pool {self._opened.pool} gave no whole answer in time; allow it more"
            ) from error
        if isinstance(answer, PoolError):
            raise answer
        if isinstance(answer, Failed):
            raise error_of(answer)
        return answer


class RayEnginePool(_RayPool):
    """Serves one model on the nodes of a Ray cluster.

    Args:
        opened: What the pool is, with the least number of replicas.
        max_replicas: The most.
        watch: Told of replicas.
        driver: Starts the driver.
    """

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return self._max_replicas

    @property
    def _job(self) -> EngineJob:
        job = self._opened.job
        if not isinstance(job, EngineJob):
            raise SteelyardBugError(f"pool {self._opened.pool} was opened for tools")
        return job

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work?"""
        return self._job.task == "embeddings"

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus output; 0 before `start`."""
        return self._context_tokens

    def models(self) -> tuple[str, ...]:
        """Which models are served?"""
        return (self._job.model,)

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Start the least number of replicas; return when they are ready.

        Args:
            watch: Not used: the pool's `ElasticWatch` is told more.

        Raises:
            ConfigError: No cluster answers, or no node of it will do.
            PoolUnavailableError: The driver died.
        """
        await self._start()

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; closing the iterator frees the place.

        Args:
            request: What is asked.
            replica: Number of the replica, below `replicas`.

        Raises:
            PoolError: As in `LlmBackend.complete`.
        """
        if request.model != self._job.model:
            raise PoolRejectedError(
                f"pool {self._opened.pool} serves {self._job.model!r}, not {request.model!r}"
            )
        answers = self._answers(lambda n: AskLlm(n, replica, request), request.deadline_s)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, Chunk):
                    yield answer.chunk

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        """Turn texts into vectors.

        Raises:
            PoolError: As in `LlmBackend.embed`.
        """
        answers = self._answers(lambda n: AskVectors(n, replica, tuple(texts), model), None)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, Done) and answer.vectors is not None:
                    return answer.vectors
        raise PoolProtocolError(f"pool {self._opened.pool} sent no vectors")


class RayToolPool(_RayPool):
    """Runs tools on the nodes of a Ray cluster.

    Args:
        opened: What the pool is, with the least number of replicas.
        max_replicas: The most.
        watch: Told of replicas.
        driver: Starts the driver.
    """

    @property
    def slots(self) -> int:
        """How many tools run at once, were all replicas up?"""
        return self._max_replicas * self.replica_slots

    async def start(self) -> None:
        """Start the least number of replicas; return when they are ready.

        Raises:
            ConfigError: No cluster answers, or no node of it will do.
            PoolUnavailableError: The driver died.
        """
        await self._start()

    async def run(self, request: ToolRequest) -> ToolOutcome:
        """Run a tool on the first replica; see `run_on`."""
        return await self.run_on(request, 0)

    async def run_on(self, request: ToolRequest, replica: int) -> ToolOutcome:
        """Run a tool on a replica; cancelling the awaiting task kills the call.

        Raises:
            PoolError: As in `ToolBackend.run`.
        """
        answers = self._answers(lambda n: AskTool(n, replica, request), None)
        async with aclosing(answers):
            async for answer in answers:
                if isinstance(answer, Done) and answer.outcome is not None:
                    return answer.outcome
        raise PoolProtocolError(f"pool {self._opened.pool} sent no outcome")
