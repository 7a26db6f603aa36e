"""A pool that answers from a script: the test double for everything that talks to a pool.

It ships, because whoever builds on the gateway or the runtime needs to make a pool slow, full or
broken at will, and no engine can be told to.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from steelyard.errors import PoolError, PoolRejectedError
from steelyard.pools.backend import (
    Embeddings,
    FinishReason,
    LlmChunk,
    LlmRequest,
    LlmUsage,
    ReplicaWatcher,
    TokenLogprob,
    ToolCallDelta,
)


class ScriptedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool does with one request.

    Attributes:
        pieces: Pieces of text, each one token; sent for each of the request's `n` answers.
        tool_calls: Sent after the text, in one chunk.
        finish_reason: Of every answer.
        logprob: Log-probability of every piece, sent where the request asks for it.
        cached_tokens: Part of the prompt to be told as cached.
        input_tokens: Length of the prompt to be told.
        error: Raised after `pieces_before_error` pieces.
        pieces_before_error: See `error`.
        before_first: Waited for before anything is sent.
        before_each: Waited for, and cleared, before every piece after the first.
    """

    pieces: tuple[str, ...] = ("Hello", " world")
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason = "stop"
    logprob: float = -0.5
    cached_tokens: int = 0
    input_tokens: int = 7
    error: PoolError | None = None
    pieces_before_error: int = 0
    before_first: asyncio.Event | None = None
    before_each: asyncio.Event | None = None


class ScriptedLlmPool:
    """Serves one model with answers from a script.

    Args:
        script: One answer per request, in order; the last one is repeated.
        model: Name of the model.
        embedding_dimensions: Length of the vectors; 0 for a pool without embeddings.
    """

    def __init__(
        self,
        script: tuple[ScriptedAnswer, ...] = (ScriptedAnswer(),),
        model: str = "scripted",
        embedding_dimensions: int = 0,
    ) -> None:
        self._script = script
        self._model = model
        self._embedding_dimensions = embedding_dimensions
        self._in_flight = 0
        self._changed = asyncio.Condition()
        self.requests: list[LlmRequest] = []
        self.cancelled = 0

    @property
    def replicas(self) -> int:
        """One."""
        return 1

    @property
    def supports_embeddings(self) -> bool:
        """Does `embed` work?"""
        return self._embedding_dimensions > 0

    @property
    def in_flight(self) -> int:
        """How many requests are being answered?"""
        return self._in_flight

    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self._model,)

    async def start(self, watch: ReplicaWatcher | None = None) -> None:
        """Nothing is to be started."""

    async def close(self) -> None:
        """Nothing is to be stopped."""

    async def wait_in_flight(self, count: int) -> None:
        """Wait until exactly so many requests are being answered.

        Args:
            count: How many.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight == count)

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        """Answer as the script says.

        Args:
            request: Kept in `requests`.
            replica: Not used: there is one.

        Raises:
            PoolError: As the script says.
        """
        answer = self._script[min(len(self.requests), len(self._script) - 1)]
        self.requests.append(request)
        await self._count(+1)
        whole = False
        try:
            async for chunk in _chunks(answer, request):
                yield chunk
            whole = True
        except PoolError:
            whole = True
            raise
        finally:
            self.cancelled += 0 if whole else 1
            await self._count(-1)

    async def embed(
        self,
        texts: list[str],
        model: str,
        replica: int,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """Vectors whose first number is the text's length, the others zero.

        Raises:
            PoolRejectedError: The pool was made without embeddings.
        """
        if not self.supports_embeddings:
            raise PoolRejectedError(f"the scripted pool has no embeddings for {model!r}")
        zeros = (0.0,) * (self._embedding_dimensions - 1)
        return Embeddings(
            vectors=tuple((float(len(text)), *zeros) for text in texts),
            input_tokens=sum(len(text) for text in texts),
        )

    async def _count(self, change: int) -> None:
        self._in_flight += change
        async with self._changed:
            self._changed.notify_all()


async def _chunks(answer: ScriptedAnswer, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
    if answer.before_first is not None:
        await answer.before_first.wait()
    for number, piece in enumerate(answer.pieces):
        if answer.error is not None and number == answer.pieces_before_error:
            raise answer.error
        if number > 0 and answer.before_each is not None:
            await answer.before_each.wait()
            answer.before_each.clear()
        logprobs = (TokenLogprob(token=piece, logprob=answer.logprob),) if request.logprobs else ()
        for index in range(request.n):
            yield LlmChunk(index=index, text=piece, logprobs=logprobs)
    if answer.error is not None:
        raise answer.error
    for index in range(request.n):
        yield LlmChunk(
            index=index, tool_calls=answer.tool_calls, finish_reason=answer.finish_reason
        )
    yield LlmChunk(
        usage=LlmUsage(
            input_tokens=answer.input_tokens,
            cached_tokens=answer.cached_tokens,
            output_tokens=len(answer.pieces) * request.n,
            cached_tokens_measured=True,
        )
    )
