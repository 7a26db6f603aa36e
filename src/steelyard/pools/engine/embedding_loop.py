"""The embedding child's work: takes texts, batches them over requests, and sends the vectors."""

from collections.abc import Callable
from typing import Protocol

from steelyard.pools.engine.bert import Floats
from steelyard.pools.engine.frames import Broken, Done, Embed, FromChild, Rejected, Vectors

# A step bounds how long a cancel waits; larger batches are not faster per token (docs/adr/0014).
_BATCH_TOKENS = 1024
_ALIKE_TOKENS = 16


class Embedder(Protocol):
    """What the loop needs of a model."""

    max_text_tokens: int

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text?"""
        ...

    def embed(self, rows: list[list[int]]) -> Floats:
        """What vectors are the rows of tokens?"""
        ...


class _Call:
    """One request in the child."""

    def __init__(self, request_id: int, rows: list[list[int]]) -> None:
        self.request_id = request_id
        self.input_tokens = sum(len(row) for row in rows)
        self.vectors: list[bytes] = [b""] * len(rows)
        self.open_rows = len(rows)


class _Row:
    """One text of a request, as tokens."""

    def __init__(self, call: _Call, index: int, token_ids: list[int]) -> None:
        self.call = call
        self.index = index
        self.token_ids = token_ids


class EmbeddingLoop:
    """Runs embedding requests on a model.

    Args:
        model: Computes.
        name: Name of the model, for messages.
        send: Takes the frames for the supervisor.
    """

    def __init__(self, model: Embedder, name: str, send: Callable[[FromChild], None]) -> None:
        self._model = model
        self._name = name
        self._send = send
        self._rows: list[_Row] = []
        self._step_failures = 0
        self.broken = False

    @property
    def context_tokens(self) -> int:
        """Longest text."""
        return self._model.max_text_tokens

    @property
    def cache_tokens(self) -> int:
        """None: a vector needs no keys and values of earlier texts."""
        return 0

    @property
    def running(self) -> int:
        """How many requests are being computed?"""
        return len({row.call.request_id for row in self._rows})

    @property
    def waiting(self) -> int:
        """How many requests wait for a place? None: all texts are in one line."""
        return 0

    def submit(self, embed: Embed) -> None:
        """Take a request, or reject it."""
        longest = self._model.max_text_tokens
        rows: list[list[int]] = []
        for number, text in enumerate(embed.texts):
            row = self._model.encode(text)
            if len(row) > longest:
                # Cut off in silence, as other servers do, the vector would lie about its text.
                message = (
                    f"Text {number} has {len(row)} tokens; {self._name} takes {longest}. "
                    "Split it into shorter ones."
                )
                self._send(Rejected(embed.request_id, message))
                return
            rows.append(row)
        call = _Call(embed.request_id, rows)
        self._rows.extend(_Row(call, index, row) for index, row in enumerate(rows))

    def cancel(self, request_id: int) -> None:
        """Drop a request."""
        self._rows = [row for row in self._rows if row.call.request_id != request_id]

    def step(self) -> None:
        """Compute one batch and send what is complete; sets `broken` when it cannot go on."""
        batch = self._next_batch()
        if not batch:
            return
        try:
            vectors = self._model.embed([row.token_ids for row in batch])
        except (RuntimeError, ValueError, MemoryError) as error:
            self._step_failures += 1
            if self._step_failures > 1:
                self.broken = True
                told = " ".join(str(error).split())[:300]
                self._send(Broken(f"embed() raised twice, last: {told}"))
            return
        self._step_failures = 0
        self._rows = [row for row in self._rows if row not in batch]
        for row, vector in zip(batch, vectors, strict=True):
            row.call.vectors[row.index] = vector.tobytes()
            row.call.open_rows -= 1
            if row.call.open_rows == 0:
                self._finish(row.call)

    def _next_batch(self) -> list[_Row]:
        """The oldest text, and others of about its length, oldest first: padding costs as text."""
        if not self._rows:
            return []
        first = self._rows[0]
        by_likeness = sorted(
            self._rows[1:], key=lambda row: abs(len(row.token_ids) - len(first.token_ids))
        )
        batch, longest = [first], len(first.token_ids)
        farthest = max(_ALIKE_TOKENS, longest // 2)
        for row in by_likeness:
            if abs(len(row.token_ids) - len(first.token_ids)) > farthest:
                break
            longest = max(longest, len(row.token_ids))
            if longest * (len(batch) + 1) > _BATCH_TOKENS:
                break
            batch.append(row)
        return batch

    def _finish(self, call: _Call) -> None:
        self._send(
            Vectors(
                call.request_id,
                values=b"".join(call.vectors),
                count=len(call.vectors),
                input_tokens=call.input_tokens,
            )
        )
        self._send(Done(call.request_id))
