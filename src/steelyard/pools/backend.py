"""What every pool offers, whatever hardware stands behind it: the requests, answers and protocols.

The structs are frozen and travel over process boundaries as msgpack. Texts keep the form of the
OpenAI wire, so that an OpenAI-compatible endpoint gets what the caller wrote.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from steelyard.errors import PoolError

JsonObject = dict[str, Any]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

# Called with (replica, up) whenever a replica went down or came back.
ReplicaWatcher = Callable[[int, bool], Awaitable[None]]


class LlmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a model.

    Attributes:
        kind: `chat` uses `messages`, `completion` uses `prompt`.
        model: Name of the model, one of the backend's `models()`.
        messages: Chat messages in the form of the OpenAI wire.
        prompt: Text to continue.
        max_output_tokens: Upper limit of the answer; None for what is left of the context.
        temperature: 0 takes the likeliest token; None leaves it to the backend (1.0).
        top_p: Share of probability mass kept; None leaves it to the backend (1.0).
        seed: Makes sampling repeatable.
        stop: Texts that end the answer; they are not part of it.
        n: Number of answers.
        logprobs: Whether each token's log-probability is wanted.
        top_logprobs: Number of alternatives wanted per token.
        json_schema: JSON Schema that the answer must follow.
        json_object: Whether the answer must be a JSON object.
        tools: Tool definitions in the form of the OpenAI wire.
        tool_choice: `auto`, `required`, `none`, or the OpenAI object that names one.
        raw_body: The caller's whole OpenAI request; endpoints pass unknown fields through.
        extra_headers: HTTP headers for this request, used by endpoint pools alone.
        deadline_s: Seconds from now after which the answer is of no use; None without a limit.
    """

    kind: Literal["chat", "completion"]
    model: str
    messages: list[JsonObject] = []
    prompt: str = ""
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    json_schema: JsonObject | None = None
    json_object: bool = False
    tools: list[JsonObject] = []
    tool_choice: str | JsonObject | None = None
    raw_body: JsonObject = {}
    extra_headers: dict[str, str] = {}
    deadline_s: float | None = None


class LlmUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that a call used.

    Attributes:
        input_tokens: Length of the prompt.
        cached_tokens: Part of the prompt that was not computed again.
        output_tokens: Length of all answers together.
        cached_tokens_measured: False where `cached_tokens` is our estimate.
        measured: False where the other two are our estimate as well.
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cached_tokens_measured: bool
    measured: bool = True


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool call that the model asks for.

    Attributes:
        index: Number of the call within the answer.
        id: Id of the call; empty in pieces after the first.
        name: Name of the tool; empty in pieces after the first.
        arguments: The next piece of the arguments' JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """Natural logarithm of the probability with which a token was chosen."""

    token: str
    logprob: float


class LlmChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of an answer.

    Attributes:
        index: Number of the answer, below the request's `n`.
        text: Text to append.
        tool_calls: Tool calls to append to.
        finish_reason: Set in the last piece of this answer.
        usage: Set once, in the last chunk of the call.
        logprobs: One per token of `text`, where asked for.
        raw: The upstream's own object, from endpoint pools, to forward vendor fields.
        response_headers: HTTP headers of the answer, in an endpoint's first chunk.
    """

    index: int = 0
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    usage: LlmUsage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    raw: JsonObject | None = None
    response_headers: dict[str, str] | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per text, in order, and the tokens of all texts together."""

    vectors: tuple[tuple[float, ...], ...]
    input_tokens: int


class LlmBackend(Protocol):
    """A pool that serves models. Every method that talks to hardware raises `PoolError` alone."""

    @property
    def replicas(self) -> int:
        """How many replicas are there, up or down?"""
        ...

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work?"""
        ...

    def models(self) -> tuple[str, ...]:
        """Which models are served?"""
        ...

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Bring the replicas up; return when all are ready.

        Args:
            watch: Called when a replica goes down or comes back.
        """
        ...

    async def close(self) -> None:
        """Stop everything; requests in flight fail with PoolUnavailableError."""
        ...

    def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer a request, piece by piece.

        Closing the iterator (`contextlib.aclosing`) cancels the work at once, in prefill too.

        Args:
            request: What is asked.
            replica: Number of the replica, below `replicas`.

        Raises:
            PoolRejectedError: The request is wrong.
            PoolOverloadedError: The replica's queue is full.
            PoolUnavailableError: The replica is down, or died on the way.
            PoolTimeoutError: No answer in time.
            PoolProtocolError: The answer cannot be read.
        """
        ...

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        """Turn texts into vectors; PoolRejectedError where `supports_embeddings` is False."""
        ...


class RelayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose answer is handed on as the upstream writes it.

    Attributes:
        request: What is asked.
        body: The caller's whole body as it came, JSON.
        stream: Whether the answer is wanted piece by piece.
        path: What was asked of the caller's own API, below `/v1`, such as `/responses`; empty for
            the chat or completion that `request` is.
    """

    request: LlmRequest
    body: bytes
    stream: bool
    path: str = ""


class ReadFlow(Protocol):
    """Holds an upstream back."""

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        ...

    def resume(self) -> None:
        """Go on reading."""
        ...


class RelayTarget(Protocol):
    """Takes the events of a streamed answer; called while bytes are read, so it must not raise."""

    def flows(self, flow: ReadFlow | None) -> None:
        """Hold the upstream back by this from now on; None: there is nothing to hold back."""
        ...

    def events(self, data: bytes, tokens: int) -> None:
        """Send whole events, as the upstream wrote them.

        Args:
            data: One event or more.
            tokens: About how many they hold, counted as in a whole answer; 0 for events without
                text, thoughts or a tool call.
        """
        ...


class RelayedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do when an answer was handed on.

    Attributes:
        usage: Tokens used.
        body: The whole answer, where none was streamed; not sent yet.
        usage_event: The stream's event with the usage, where it had one; held back.
        last_event: The last event of a stream of another API than chat, as it came; held back.
    """

    usage: LlmUsage
    body: bytes = b""
    usage_event: JsonObject | None = None
    last_event: bytes = b""


@runtime_checkable
class RelayBackend(Protocol):
    """A pool whose answers can be handed on byte for byte."""

    def relays(self, path: str) -> bool:
        """Can `relay` be asked this path of `RelayRequest`? Chats and completions (""): yes."""
        ...

    async def relay(self, asked: RelayRequest, replica: int, target: RelayTarget) -> RelayedAnswer:
        """Answer a request; all but the usage event and `[DONE]` of a stream goes to `target`.

        Args:
            asked: What is asked.
            replica: Number of the replica.
            target: Takes events as they come.

        Returns:
            What is left to be sent.

        Raises:
            PoolError: As in `LlmBackend.complete`.
        """
        ...


# Told once how it ended: with what is left to be sent, or why it will not come.
Ended = Callable[[RelayedAnswer | None, PoolError | None], None]


class Cut(Protocol):
    """Ends what was begun."""

    def cut(self) -> None:
        """Stop the work upstream at once; nobody is told."""
        ...


@runtime_checkable
class QuickRelayBackend(Protocol):
    """A pool that can send a request within one call."""

    def relay_now(
        self, asked: RelayRequest, replica: int, target: RelayTarget, ended: Ended
    ) -> Cut | None:
        """Send a request; None where that would have to wait, and nothing was sent."""
        ...


class ToolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a tool.

    Attributes:
        tool: `module:function`.
        arguments: Keyword arguments, JSON values.
        timeout_s: Seconds after which the call is killed.
        memory_bytes: Memory that the call may use beyond the idle worker's; 0 leaves it to the
            pool. Without a sandbox it is address space, and each process has it anew.
        task_id: Task that the call belongs to; empty for none. Told to MCP servers.
        key: Idempotency key of its step, the same for every attempt; empty for none. Told to MCP
            servers.
    """

    tool: str
    arguments: JsonObject
    timeout_s: float = 60.0
    memory_bytes: int = 0
    task_id: str = ""
    key: str = ""


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool returned and used.

    Attributes:
        result: The returned value, a JSON value.
        cpu_s: User and system CPU seconds of the call, its waited-for children included.
        wall_s: Seconds from call to return, in the worker.
        max_memory_bytes: Peak resident memory of the worker up to the call's end.
        measured: False where `cpu_s` and `max_memory_bytes` are not known but assumed.
    """

    result: Any
    cpu_s: float
    wall_s: float
    max_memory_bytes: int
    measured: bool = True


@runtime_checkable
class ToolBackend(Protocol):
    """A pool that runs tools."""

    @property
    def slots(self) -> int:
        """How many tools run at once?"""
        ...

    async def start(self) -> None:
        """Bring the workers up."""
        ...

    async def close(self) -> None:
        """Stop the workers; calls in flight fail with PoolUnavailableError."""
        ...

    async def run(self, request: ToolRequest) -> ToolOutcome:
        """Run a tool and wait for its result; cancelling the awaiting task kills the call.

        Raises:
            PoolRejectedError: No such tool, or arguments or result are not JSON.
            ToolFailedError: The tool raised.
            PoolTimeoutError: The tool took longer than `timeout_s`.
            PoolUnavailableError: The worker died.
        """
        ...
