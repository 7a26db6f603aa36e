"""An upstream's answer as chunks, for callers that want to look into it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from steelyard.errors import PoolError, PoolUnavailableError
from steelyard.pools.backend import JsonObject, LlmChunk, LlmRequest, LlmUsage, ReadFlow
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.http_connection import Headers
from steelyard.pools.relay import WholeBody
from steelyard.pools.sse import SseParser
from steelyard.pools.wire import (
    estimated_usage,
    parse_chunks,
    parse_object,
    parse_usage,
    thoughts_in,
)

# Chunks that wait to be taken before the upstream is held back.
_MAX_WAITING = 256


class ChunkedAnswer(WholeBody):
    """Reads an answer, streamed or whole, into chunks.

    Args:
        request: What is asked.
        errors: Reads the upstream's errors.
    """

    def __init__(self, request: LlmRequest, errors: ErrorReader) -> None:
        super().__init__(errors)
        self._request = request
        self._parser = SseParser()
        self._waiting: deque[LlmChunk] = deque()
        self._more = asyncio.Event()
        self._flow: ReadFlow | None = None
        self._texts: list[str] = []
        self._finished: set[int] = set()
        self._usage: LlmUsage | None = None
        self._usage_raw: JsonObject | None = None

    def flows(self, flow: ReadFlow | None) -> None:
        """Hold the upstream back by this."""
        self._flow = flow

    def head(self, status: int, headers: Headers) -> None:
        """Status and headers are here; the first chunk carries them."""
        super().head(status, headers)
        if status == 200:
            self._add(LlmChunk(response_headers=self.response_headers))

    def data(self, piece: bytes) -> None:
        """Read what is whole now."""
        if not self.is_stream:
            super().data(piece)
            return
        try:
            self._read_events(self._parser.feed(piece))
        except PoolError as error:
            self.fail(error)

    async def chunks(self, working: "asyncio.Task[None]") -> AsyncGenerator[LlmChunk, None]:
        """The answer's chunks as they come.

        Args:
            working: Sends the request; its error is the answer's.

        Raises:
            PoolError: The answer is not whole, or unreadable.
        """
        working.add_done_callback(lambda _: self._more.set())
        while True:
            while self._waiting:
                if self._flow is not None and len(self._waiting) == 1:
                    self._flow.resume()
                yield self._waiting.popleft()
            if working.done():
                break
            self._more.clear()
            await self._more.wait()
        working.result()
        if self.is_stream:
            self._read_events(self._parser.finish())
        else:
            self._read(parse_object(self.body))
        while self._waiting:
            yield self._waiting.popleft()
        yield self._last()

    def _read_events(self, events: list[str]) -> None:
        for event in events:
            if event == "[DONE]":
                self.end_stream()
            elif not self._is_over:
                self._read(parse_object(event))

    def _read(self, raw: JsonObject) -> None:
        self.raise_errors_in(raw)
        usage = parse_usage(raw)
        self._usage = usage if usage is not None else self._usage
        chunks = parse_chunks(raw)
        if usage is not None and not raw.get("choices"):
            self._usage_raw = raw
            return
        self._texts.extend(thoughts_in(raw))
        for chunk in chunks:
            if chunk.text or chunk.tool_calls:
                pieces = [chunk.text, *(c.name + c.arguments for c in chunk.tool_calls)]
                self._texts.append("".join(pieces))
            if chunk.finish_reason is not None:
                self._finished.add(chunk.index)
            self._add(chunk)

    def _add(self, chunk: LlmChunk) -> None:
        self._waiting.append(chunk)
        self._more.set()
        if self._flow is not None and len(self._waiting) > _MAX_WAITING:
            self._flow.pause()

    def _last(self) -> LlmChunk:
        """The chunk with the usage."""
        if not self._finished:
            raise PoolUnavailableError("The upstream ended its answer without a finish_reason.")
        usage = self._usage or estimated_usage(self._request, self._texts)
        return LlmChunk(usage=usage, raw=self._usage_raw)
