"""The embedded engine as a pool: N replicas, each a supervised child process on its own core."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from steelyard.errors import PoolError, PoolProtocolError, PoolRejectedError, PoolTimeoutError
from steelyard.pools.backend import Embeddings, LlmChunk, LlmRequest, ReplicaWatcher
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.frames import Load
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.replicas import Replicas, own_core
from steelyard.pools.engine.supervisor import Flight, SupervisorLimits


class EmbeddedEnginePool:
    """Serves one model on this machine's CPU cores.

    Args:
        replicas: Number of child processes; one per core is the measured optimum.
        model_path: A GGUF file; None for the packaged SmolLM2-135M-Instruct.
        settings: How each child runs; `core` is set per replica where the system allows it.
        limits: When a replica is full or dead.
    """

    def __init__(
        self,
        replicas: int = 1,
        model_path: Path | None = None,
        settings: EngineSettings | None = None,
        limits: SupervisorLimits | None = None,
    ) -> None:
        self._model_path = model_path
        self._settings = settings if settings is not None else EngineSettings()
        self._children = Replicas(replicas, limits if limits is not None else SupervisorLimits())
        self._context_tokens = 0

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return self._children.count

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work? No: the engine generates text only."""
        return False

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus output; 0 before `start`."""
        return self._context_tokens

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values each replica holds; 0 before `start`."""
        return self._children.cache_tokens

    def models(self) -> tuple[str, ...]:
        """Which models are served?"""
        return (self._settings.model,)

    def is_up(self, replica: int) -> bool:
        """Does the replica take requests?"""
        return self._children.is_up(replica)

    def pid(self, replica: int) -> int | None:
        """Process id of the replica; None while it is down."""
        return self._children.pid(replica)

    def in_flight(self, replica: int) -> int:
        """How many requests run or wait on the replica?"""
        return self._children.in_flight(replica)

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Load the model in every child; return when all are ready.

        Args:
            watch: Called when a replica goes down or comes back.

        Raises:
            ConfigError: The model file is absent, or cannot be loaded.
            PoolUnavailableError: A child died while loading.
        """
        model = find_model(self._model_path)
        self._context_tokens = model.context_tokens

        def load(replica: int) -> Load:
            core = self._settings.core if self._settings.core is not None else own_core(replica)
            settings = msgspec.structs.replace(self._settings, core=core)
            return Load(model.path, model.context_tokens, settings)

        await self._children.start(load, watch)
        # A library may have room for less than the model could read.
        self._context_tokens = self._children.context_tokens or self._context_tokens

    async def close(self) -> None:
        """Stop all children; requests in flight fail with PoolUnavailableError."""
        await self._children.close()

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece; closing the iterator frees the place at once.

        Args:
            request: What is asked.
            replica: Number of the replica, below `replicas`.

        Raises:
            PoolRejectedError: The request is wrong; the message says what.
            PoolOverloadedError: The replica's queue is full.
            PoolUnavailableError: The replica is down, or died on the way.
            PoolTimeoutError: `deadline_s` passed.
        """
        if request.model != self._settings.model:
            raise PoolRejectedError(
                f"The embedded engine serves {self._settings.model!r}, not {request.model!r}."
            )
        supervisor = self._children.supervisor(replica)
        flight = supervisor.submit(request)
        try:
            async with contextlib.aclosing(_chunks(flight)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            supervisor.release(flight)

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        """Refused: the embedded engine generates text only.

        Raises:
            PoolRejectedError: Always.
        """
        raise PoolRejectedError(
            f"The embedded engine has no embeddings (asked of {model!r} for {len(texts)} texts, "
            f'replica {replica}); use a pool with task = "embeddings", or an endpoint\'s.'
        )


async def _chunks(flight: Flight) -> AsyncGenerator[LlmChunk, None]:
    request = flight.request
    deadline_s = request.deadline_s if isinstance(request, LlmRequest) else None
    until_s = None if deadline_s is None else flight.since_s + deadline_s
    while True:
        try:
            async with asyncio.timeout_at(until_s):
                item = await flight.inbox.get()
        except TimeoutError as error:
            raise PoolTimeoutError(
                f"The embedded engine gave no whole answer within {deadline_s} s."
            ) from error
        if item is None:
            return
        if isinstance(item, LlmChunk):
            yield item
        elif isinstance(item, PoolError):
            raise item
        else:
            raise PoolProtocolError("The engine child sent vectors where an answer was asked for.")
