"""What runs on a node: one engine or one pool of tool workers, and the answers that wait.

The driver asks with one call and fetches what has come since with another (`pull`), of which one
is always under way: a stream of tokens costs one call per batch, not one per token, and a call
that fails tells that the replica is lost.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import metadata
from pathlib import Path

import msgspec

from steelyard.config.environment import cache_folder, processor_description, tool_environment
from steelyard.errors import PoolError, PoolRejectedError, SteelyardError
from steelyard.pools.backend import LlmBackend, LlmChunk, ToolBackend
from steelyard.pools.engine.adapter import EngineSettings
from steelyard.pools.engine.choice import choose_engine
from steelyard.pools.engine.embedding_pool import EmbeddingPool
from steelyard.pools.engine.model import find_model
from steelyard.pools.engine.pool import EmbeddedEnginePool
from steelyard.pools.engine.replicas import own_core
from steelyard.pools.ray.frames import (
    Answer,
    Ask,
    AskLlm,
    AskTool,
    Chunk,
    Done,
    EngineJob,
    Failed,
    Health,
    Job,
    ToolsJob,
    failed,
)
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox
from steelyard.pools.tools import ProcessToolPool

# An answer comes at least this often, so that silence means something.
_LONGEST_PULL_S = 2.0
# Whose request a message ends (-1 for none), whether it ends it, and its bytes.
Told = tuple[int, bool, bytes]
OF_NO_REQUEST = -1


class ReplicaHost:
    """One replica of a pool, in a process of its own on a node.

    Args:
        job: A `Job`, encoded.
    """

    def __init__(self, job: bytes) -> None:
        self._job: Job = msgspec.msgpack.decode(job, type=Job)
        self._llm: LlmBackend | None = None
        self._tools: ToolBackend | None = None
        self._work: dict[int, asyncio.Task[None]] = {}
        self._told: list[Told] = []
        self._has_told = asyncio.Event()

    async def begin(self, ordinal: int) -> tuple[str, int, str]:
        """Start the backend.

        Args:
            ordinal: Number of the replica on its node, which says what core an engine stays on.

        Returns:
            Steelyard's version here, the engine's context in tokens, and why it cannot start:
            empty where it has.
        """
        try:
            if isinstance(self._job, ToolsJob):
                self._tools = await _tools(self._job)
                await self._tools.start()
                return installed_version(), 0, ""
            backend = await _engine(self._job, ordinal)
            await backend.start(self._changed)
            self._llm = backend
            return installed_version(), getattr(backend, "context_tokens", 0), ""
        except SteelyardError as error:
            return installed_version(), 0, " ".join(str(error).split())

    async def ask(self, body: bytes) -> None:
        """Begin to answer a request, an `Ask` as it came."""
        asked: Ask = msgspec.msgpack.decode(body, type=Ask)
        self._work[asked.request_id] = asyncio.create_task(self._answer(asked))

    async def drop(self, request_id: int) -> None:
        """Stop work on a request."""
        task = self._work.get(request_id)
        if task is not None:
            task.cancel()

    async def pull(self) -> list[Told]:
        """What is new since the last call? Waits for something for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_PULL_S):
                await self._has_told.wait()
        told, self._told = self._told, []
        self._has_told.clear()
        return told

    async def end(self) -> None:
        """Stop the backend."""
        for task in self._work.values():
            task.cancel()
        backend = self._llm or self._tools
        if backend is not None:
            await backend.close()

    async def _changed(self, replica: int, up: bool) -> None:
        self._tell(OF_NO_REQUEST, msgspec.msgpack.encode(Health(up)), last=False)

    async def _answer(self, asked: Ask) -> None:
        try:
            async with aclosing(self._answers(asked)) as answers:
                async for answer in answers:
                    self._tell(asked.request_id, msgspec.msgpack.encode(answer), _is_last(answer))
        except PoolError as error:
            self._fail(asked, error)
        except Exception as error:  # noqa: BLE001 - the executor's attempt boundary
            self._fail(asked, PoolError(f"the replica raised {type(error).__name__}: {error}"))
        finally:
            self._work.pop(asked.request_id, None)

    def _fail(self, asked: Ask, error: PoolError) -> None:
        body = msgspec.msgpack.encode(failed(asked.request_id, error))
        self._tell(asked.request_id, body, last=True)

    async def _answers(self, asked: Ask) -> AsyncGenerator[Answer, None]:
        if isinstance(asked, AskTool):
            if self._tools is None:
                raise PoolRejectedError("This pool runs no tools; ask another one.")
            yield Done(asked.request_id, outcome=await self._tools.run(asked.request))
            return
        if self._llm is None:
            raise PoolRejectedError("This pool serves no models; ask another one.")
        if isinstance(asked, AskLlm):
            chunks: AsyncGenerator[LlmChunk, None] = self._llm.complete(asked.request, 0)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield Chunk(asked.request_id, chunk)
            yield Done(asked.request_id)
        else:
            vectors = await self._llm.embed(list(asked.texts), asked.model, 0)
            yield Done(asked.request_id, vectors=vectors)

    def _tell(self, request_id: int, body: bytes, last: bool) -> None:
        self._told.append((request_id, last, body))
        self._has_told.set()


def installed_version() -> str:
    """Which Steelyard is installed here? Nodes and gateway must have the same."""
    return metadata.version("steelyard")


def _is_last(answer: Answer) -> bool:
    return isinstance(answer, Done | Failed)


async def _tools(job: ToolsJob) -> ProcessToolPool:
    sandbox = None
    if job.sandbox != "off":
        limits = SandboxLimits(
            memory_bytes=job.memory_bytes,
            processes=job.processes,
            folder_bytes=job.folder_bytes,
            cores=job.cores,
        )
        sandbox = await find_sandbox(job.sandbox, limits, job.python_paths)
    return ProcessToolPool(
        slots=job.slots,
        python_paths=job.python_paths,
        environment=tool_environment(),
        sandbox=sandbox,
    )


async def _engine(job: EngineJob, ordinal: int) -> EmbeddingPool | EmbeddedEnginePool:
    path = Path(job.model_path) if job.model_path else None
    if job.task == "embeddings":
        return EmbeddingPool(replicas=1, model_path=path, model=job.model)
    memory = cache_folder() / "engines.json"
    model = find_model(path)
    chosen = await choose_engine(job.engine, model, processor_description(), memory, job.precision)
    settings = EngineSettings(
        adapter=chosen.engine,
        precision=chosen.precision,
        cache_folder=str(memory.parent),
        model=job.model,
        max_streams=job.concurrency_cap,
        core=own_core(ordinal),
    )
    return EmbeddedEnginePool(replicas=1, model_path=path, settings=settings)
