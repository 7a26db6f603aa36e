"""The engine child's work: admits requests, steps the engine, and sends the pieces of answers.

Single-threaded and free of I/O but for `send`, so that it can be tested with any adapter.
"""

import secrets
from collections import deque
from collections.abc import Callable
from typing import Literal

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import (
    FinishReason,
    LlmChunk,
    LlmUsage,
    TokenLogprob,
    ToolCallDelta,
)
from steelyard.pools.engine.adapter import EngineAdapter, EngineDelta, EngineSettings, Sampling
from steelyard.pools.engine.frames import Broken, Done, FromChild, Piece, Rejected, Started, Submit
from steelyard.pools.engine.prefix import PrefixMirror, block_keys
from steelyard.pools.engine.prepare import Prepared, prepare
from steelyard.pools.engine.stream import TextStream
from steelyard.pools.engine.tooling import parse_answer

_TOOL_CALL_ID_BYTES = 12


class _Call:
    """One request in the child."""

    def __init__(self, submit: Submit, prepared: Prepared) -> None:
        self.request_id = submit.request_id
        self.request = submit.request
        self.prepared = prepared
        self.open_answers = len(prepared.samplings)
        self.output_tokens = 0
        self.cached_tokens = 0
        self.cached_tokens_measured = False
        self.started = False


class _Answer:
    """One of the answers to a request: a sequence of the engine."""

    def __init__(self, call: _Call, index: int, keys: list[bytes]) -> None:
        self.call = call
        self.index = index
        self.keys = keys
        self.handle = -1
        self.started = False
        self.token_ids: list[int] = []
        self.stream = TextStream(call.request.stop)
        self.buffer: list[str] = []

    @property
    def sampling(self) -> Sampling:
        return self.call.prepared.samplings[self.index]


class EngineLoop:
    """Runs requests on an adapter.

    Args:
        adapter: The engine.
        settings: How many streams run at once, and the bounds of requests.
        send: Takes the frames for the supervisor.
    """

    def __init__(
        self, adapter: EngineAdapter, settings: EngineSettings, send: Callable[[FromChild], None]
    ) -> None:
        self._adapter = adapter
        self._settings = settings
        self._send = send
        self._max_streams = min(settings.max_streams, adapter.max_streams)
        self._mirror = PrefixMirror(adapter.block_tokens, adapter.cache_blocks)
        self._waiting: deque[_Answer] = deque()
        self._running: list[_Answer] = []
        self._step_failures = 0
        self.broken = False

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values the library holds."""
        return self._adapter.cache_blocks * self._adapter.block_tokens

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus output."""
        return self._adapter.context_tokens

    @property
    def running(self) -> int:
        """How many answers are being computed?"""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many answers wait for a place?"""
        return len(self._waiting)

    def submit(self, submit: Submit) -> None:
        """Take a request, or reject it."""
        try:
            prepared = prepare(submit.request, self._adapter, self._settings)
        except PoolRejectedError as error:
            self._send(Rejected(submit.request_id, str(error)))
            return
        keys = block_keys(prepared.token_ids, self._adapter.block_tokens)
        call = _Call(submit, prepared)
        self._waiting.extend(_Answer(call, i, keys) for i in range(call.open_answers))

    def cancel(self, request_id: int) -> None:
        """Drop a request; its place is free at once."""
        for answer in self._running:
            if answer.call.request_id == request_id:
                self._adapter.cancel(answer.handle)
        self._running = [a for a in self._running if a.call.request_id != request_id]
        self._waiting = deque(a for a in self._waiting if a.call.request_id != request_id)

    def step(self) -> None:
        """Compute one batch and send what is new; sets `broken` when the engine cannot go on."""
        self._admit()
        if not self._running:
            return
        try:
            self._adapter.step()
        except (RuntimeError, ValueError, MemoryError) as error:
            self._step_failed(error)
            return
        self._step_failures = 0
        for answer in list(self._running):
            # A request that is refused takes all its answers along.
            if answer in self._running:
                self._read(answer)

    def _admit(self) -> None:
        held: deque[_Answer] = deque()
        while self._waiting and len(self._running) < self._max_streams:
            answer = self._waiting.popleft()
            if self._is_being_computed(answer):
                held.append(answer)
            else:
                self._start(answer)
        self._waiting.extendleft(reversed(held))

    def _is_being_computed(self, answer: _Answer) -> bool:
        """Whether a running prefill is about to compute much of this prompt (the warm-first gate).

        The engine shares a prefix only once it is computed: eight equal cold prompts would be
        computed eight times. Waiting for the first of them is 4 times as fast for all.
        """
        gate_tokens = self._settings.warm_first_tokens
        if gate_tokens == 0:
            return False
        needed = self._mirror.cached_tokens(answer.keys) + gate_tokens
        block = -(-needed // self._adapter.block_tokens) - 1
        return block < len(answer.keys) and any(
            not other.started
            and block < len(other.keys)
            and other.keys[block] == answer.keys[block]
            for other in self._running
        )

    def _start(self, answer: _Answer) -> None:
        call = answer.call
        cached = self._mirror.cached_tokens(answer.keys)
        if answer.index == 0:
            # The last token is always computed, since its result is the first output token.
            call.cached_tokens = min(cached, len(call.prepared.token_ids) - 1)
        try:
            answer.handle = self._adapter.add(call.prepared.token_ids, answer.sampling)
        except (RuntimeError, ValueError) as error:
            self.cancel(call.request_id)
            self._send(Rejected(call.request_id, f"The engine refused the request: {error}."))
            return
        self._running.append(answer)

    def _step_failed(self, error: Exception) -> None:
        self._step_failures += 1
        if self._step_failures > 1:
            self.broken = True
            self._send(Broken(f"step() raised twice, last: {_one_line(error)}"))
            return
        # The engine raises for ever after a grammar that it cannot read. The requests that bring a
        # new one are to blame; the next step shows whether the engine survived.
        for answer in list(self._running):
            if answer.sampling.is_constrained and not answer.started:
                self.cancel(answer.call.request_id)
                reason = f"The engine cannot follow the JSON schema: {_one_line(error)}"
                self._send(Rejected(answer.call.request_id, reason))

    def _read(self, answer: _Answer) -> None:
        delta = self._adapter.read(answer.handle)
        call = answer.call
        if delta.refused:
            self.cancel(call.request_id)
            reason = f"The engine refused the request: {delta.refused[:300]}"
            self._send(Rejected(call.request_id, reason))
            return
        if delta.cached_tokens is not None and answer.index == 0:
            call.cached_tokens, call.cached_tokens_measured = delta.cached_tokens, True
        if not delta.output_tokens and delta.finish is None:
            return
        answer.started = True
        if not call.started:
            call.started = True
            self._mirror.insert(answer.keys)
            self._send(Started(call.request_id))
        call.output_tokens += delta.output_tokens
        answer.token_ids.extend(delta.token_ids)
        text, logprobs = self._text(answer, delta)
        if answer.stream.stopped:
            self._adapter.cancel(answer.handle)
        finish: Literal["stop", "length"] | None = "stop" if answer.stream.stopped else delta.finish
        if finish is not None:
            text += answer.stream.finish()
        if call.prepared.uses_tools:
            answer.buffer.append(text)
            text = ""
        if finish is not None:
            self._finish(answer, finish, text, logprobs)
        elif text or logprobs:
            self._send(
                Piece(call.request_id, LlmChunk(index=answer.index, text=text, logprobs=logprobs))
            )

    def _text(self, answer: _Answer, delta: EngineDelta) -> tuple[str, tuple[TokenLogprob, ...]]:
        text = "".join([answer.stream.feed(piece) for piece in delta.pieces])
        if not answer.sampling.logprobs:
            return text, ()
        return text, tuple(
            TokenLogprob(token=piece.decode("utf-8", "replace"), logprob=logprob)
            for piece, logprob in zip(delta.pieces, delta.logprobs, strict=True)
            if piece
        )

    def _finish(
        self,
        answer: _Answer,
        finish: FinishReason,
        text: str,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        call = answer.call
        self._running.remove(answer)
        call.open_answers -= 1
        # The last token was chosen but never computed, so it is in no cache.
        computed = [*call.prepared.token_ids, *answer.token_ids[:-1]]
        self._mirror.insert(block_keys(computed, self._adapter.block_tokens))
        tool_calls: tuple[ToolCallDelta, ...] = ()
        if call.prepared.uses_tools:
            text, tool_calls = _tool_answer("".join(answer.buffer))
            finish = "tool_calls" if tool_calls else finish
        usage = None
        if call.open_answers == 0:
            usage = LlmUsage(
                input_tokens=len(call.prepared.token_ids),
                cached_tokens=call.cached_tokens,
                output_tokens=call.output_tokens,
                cached_tokens_measured=call.cached_tokens_measured,
            )
        chunk = LlmChunk(
            index=answer.index,
            text=text,
            tool_calls=tool_calls,
            finish_reason=finish,
            usage=usage,
            logprobs=logprobs,
        )
        self._send(Piece(call.request_id, chunk))
        if usage is not None:
            self._send(Done(call.request_id))


def _tool_answer(text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
    answer = parse_answer(text)
    if answer is None:
        return text, ()
    if not answer.name:
        return answer.reply, ()
    call_id = f"call_{secrets.token_hex(_TOOL_CALL_ID_BYTES)}"
    return "", (ToolCallDelta(index=0, id=call_id, name=answer.name, arguments=answer.arguments),)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
