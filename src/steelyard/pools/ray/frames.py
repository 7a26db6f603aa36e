"""What gateway, driver and replicas of a Ray pool say to each other.

The driver reads of an `Ask...` and of an answer only whose it is; it hands on the bytes.
"""

import msgspec

from steelyard.config.choices import EngineChoice, PrecisionChoice, SandboxChoice
from steelyard.config.pool_settings import EngineTask
from steelyard.errors import (
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import Embeddings, LlmChunk, LlmRequest, ToolOutcome, ToolRequest


class EngineJob(msgspec.Struct, frozen=True, kw_only=True, tag="engine"):
    """A replica is an embedded engine; see `EmbeddedPoolSettings`."""

    task: EngineTask
    engine: EngineChoice
    precision: PrecisionChoice
    model_path: str
    model: str
    concurrency_cap: int


class ToolsJob(msgspec.Struct, frozen=True, kw_only=True, tag="tools"):
    """A replica is a pool of tool workers; see `ToolPoolSettings`."""

    slots: int
    sandbox: SandboxChoice
    python_paths: tuple[str, ...]
    cores: float
    memory_bytes: int
    processes: int
    folder_bytes: int


Job = EngineJob | ToolsJob


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """First frame to the driver: which replicas to have, and where.

    Attributes:
        pool: Name of the pool.
        address: The cluster.
        job: What a replica is.
        selectors: Labels of nodes, the first choice first.
        cores: Cores of a replica.
        replicas: How many to begin with.
        start_s: Longest time for a replica to start.
        node_wait_s: Longest time to wait for a node.
        again: Whether the driver before this one ended: what there is room for serves, the rest
            follows when it can.
    """

    pool: str
    address: str
    job: Job
    selectors: tuple[dict[str, str], ...]
    cores: float
    replicas: int
    start_s: float
    node_wait_s: float
    again: bool = False


class AskLlm(msgspec.Struct, frozen=True, tag="llm"):
    """Call the model."""

    request_id: int
    replica: int
    request: LlmRequest


class AskVectors(msgspec.Struct, frozen=True, tag="vectors"):
    """Turn texts into vectors."""

    request_id: int
    replica: int
    texts: tuple[str, ...]
    model: str


class AskTool(msgspec.Struct, frozen=True, tag="tool"):
    """Run a tool."""

    request_id: int
    replica: int
    request: ToolRequest


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Stop work on a request; one that has ended is no mistake."""

    request_id: int


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """Have so many replicas."""

    replicas: int


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The first replicas are up; an engine takes so many tokens, prompt plus output."""

    context_tokens: int


class OpenFailed(msgspec.Struct, frozen=True, tag="open_failed"):
    """The pool cannot be started; `fixable` where the configuration must change first."""

    message: str
    fixable: bool


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    """A replica came, went or is to go; the words are those of `ReplicaChanged`."""

    replica: int
    up: bool
    reason: str
    draining: bool = False
    rented: bool = True


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The driver lives."""


class Chunk(msgspec.Struct, frozen=True, tag="chunk"):
    """The next piece of an answer."""

    request_id: int
    chunk: LlmChunk


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A request ended as it should: with nothing more, with vectors or with a tool's outcome."""

    request_id: int
    vectors: Embeddings | None = None
    outcome: ToolOutcome | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request failed; `code` is that of the error."""

    request_id: int
    code: str
    message: str
    retry_after_s: float = 0.0


Ask = AskLlm | AskVectors | AskTool
ToDriver = Open | AskLlm | AskVectors | AskTool | Drop | Scale
Answer = Chunk | Done | Failed
FromDriver = Opened | OpenFailed | Moved | Beat | Chunk | Done | Failed


class Health(msgspec.Struct, frozen=True):
    """What a replica says of itself: whether its engine takes requests now."""

    up: bool


def failed(request_id: int, error: PoolError) -> Failed:
    """How is an error told to the gateway?"""
    retry_after_s = error.retry_after_s if isinstance(error, PoolOverloadedError) else 0.0
    return Failed(request_id, error.code, str(error), retry_after_s)


def error_of(told: Failed) -> PoolError:
    """Which error was it?"""
    if told.code == PoolOverloadedError.code:
        return PoolOverloadedError(told.message, told.retry_after_s)
    kinds: tuple[type[PoolError], ...] = (
        PoolRejectedError,
        PoolTimeoutError,
        PoolUnavailableError,
        PoolProtocolError,
        ToolFailedError,
    )
    kind = next((one for one in kinds if one.code == told.code), PoolError)
    return kind(told.message)
