"""Sentence embeddings as a pool: N replicas, each a supervised child process with one thread."""

import struct
from collections.abc import AsyncGenerator
from pathlib import Path

from steelyard.errors import PoolError, PoolProtocolError, PoolRejectedError
from steelyard.pools.backend import Embeddings, LlmChunk, LlmRequest, ReplicaWatcher
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.embedding_model import PACKAGED_EMBEDDING_MODEL, find_embedding_model
from steelyard.pools.engine.frames import Load, Vectors
from steelyard.pools.engine.replicas import Replicas
from steelyard.pools.engine.supervisor import SupervisorLimits


class EmbeddingPool:
    """Turns texts into vectors on this machine's CPU cores.

    Replicas are not pinned: they compute in short bursts beside the engines, which are.

    Args:
        replicas: Number of child processes.
        model_path: Folder of a BERT model; None for the packaged all-MiniLM-L6-v2.
        model: Name under which clients ask for it.
        limits: When a replica is full or dead.
    """

    def __init__(
        self,
        replicas: int = 1,
        model_path: Path | None = None,
        model: str = PACKAGED_EMBEDDING_MODEL,
        limits: SupervisorLimits | None = None,
    ) -> None:
        self._model_path = model_path
        self._settings = EngineSettings(task="embeddings", model=model)
        self._children = Replicas(replicas, limits if limits is not None else SupervisorLimits())

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        return self._children.count

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work?"""
        return True

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
            ConfigError: The model's folder is absent, or cannot be loaded.
            PoolUnavailableError: A child died while loading.
        """
        # The child reads the longest text from the model's folder itself.
        load = Load(str(find_embedding_model(self._model_path)), 0, self._settings)
        await self._children.start(lambda _: load, watch)

    async def close(self) -> None:
        """Stop all children; requests in flight fail with PoolUnavailableError."""
        await self._children.close()

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Refused: an embedding model generates no text.

        Raises:
            PoolRejectedError: Always.
        """
        raise PoolRejectedError(
            f"The model {request.model!r} makes embeddings and generates no text (asked of "
            f"replica {replica}); ask another model, or POST /v1/embeddings."
        )
        yield LlmChunk()  # makes this function the generator that the protocol wants

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        """Turn texts into vectors of length 1; cancelling drops the texts that are not computed.

        Raises:
            PoolRejectedError: A text is too long, or the model is another one.
            PoolOverloadedError: The replica's queue is full.
            PoolUnavailableError: The replica is down, or died on the way.
            PoolProtocolError: Its answer cannot be read.
        """
        if model != self._settings.model:
            raise PoolRejectedError(
                f"This pool makes embeddings with {self._settings.model!r}, not {model!r}."
            )
        if not texts:
            raise PoolRejectedError("There is no text to embed; send at least one.")
        supervisor = self._children.supervisor(replica)
        flight = supervisor.submit(tuple(texts))
        try:
            item = await flight.inbox.get()
        finally:
            supervisor.release(flight)
        if isinstance(item, PoolError):
            raise item
        if not isinstance(item, Vectors) or item.count != len(texts):
            raise PoolProtocolError(f"The embedding child answered {type(item).__name__}.")
        return _embeddings(item)


def _embeddings(vectors: Vectors) -> Embeddings:
    dimensions = len(vectors.values) // vectors.count // 4
    rows = struct.iter_unpack(f"<{dimensions}f", vectors.values)
    return Embeddings(vectors=tuple(rows), input_tokens=vectors.input_tokens)
