"""Key-value memory of one simulated replica: what runs is held, what ran stays if there is room."""

from collections import OrderedDict
from dataclasses import dataclass

from steelyard.domain.task import LlmCall


@dataclass(slots=True)
class _Segment:
    """Tokens between two boundaries of prompts, and how many running streams use them.

    They are there only once a stream that used them has ended.
    """

    tokens: int
    users: int
    computed: bool = False


class KvCache:
    """Contexts in tokens, shared where prompts have equal prefixes.

    A running stream has its whole context reserved, answer included, as no step is preempted here.
    What it leaves is its prompt and, where a later prompt goes on from it, its answer, boundary by
    boundary; when room is needed, the least recently used prompt goes first, and its end before its
    start, as in vLLM's prefix cache. Thin: what no later prompt begins with is not kept, and of
    prompts with very many boundaries only the last ones are told apart.

    >>> cache = KvCache(1000)
    >>> call = LlmCall(model="m", input_tokens=300, max_output_tokens=50, prefix_hashes=(1, 2),
    ...     prefix_tokens=(200, 300))
    >>> cache.take(call, 50), cache.take(call, 50)
    (0, 0)
    >>> cache.reserved_tokens
    400
    >>> cache.leave(call, 50)
    >>> cache.take(call, 50)
    300
    """

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity_tokens = capacity_tokens
        self._segments: OrderedDict[int, _Segment] = OrderedDict()
        self._kept_tokens = 0
        self.reserved_tokens = 0

    def fits(self, call: LlmCall, output_tokens: int) -> bool:
        """Is there room for this stream beside those that run? Always if none does.

        Args:
            call: Its prompt.
            output_tokens: Length of its answer.
        """
        new = self._own_tokens(call, output_tokens)
        for prefix_hash, tokens in _segments(call):
            found = self._segments.get(prefix_hash)
            if found is None or not found.users:
                new += tokens if found is None else found.tokens
        return not self.reserved_tokens or self.reserved_tokens + new <= self._capacity_tokens

    def take(self, call: LlmCall, output_tokens: int) -> int:
        """Reserve room for a stream that starts.

        Args:
            call: Its prompt.
            output_tokens: Length of its answer.

        Returns:
            Tokens of its prompt that were still there.
        """
        cached, whole = 0, True
        self.reserved_tokens += self._own_tokens(call, output_tokens)
        for (prefix_hash, tokens), end in zip(_segments(call), call.prefix_tokens, strict=True):
            found = self._segments.get(prefix_hash)
            whole = whole and found is not None and found.computed
            if whole:
                cached = end
            if found is None:
                found = self._segments[prefix_hash] = _Segment(tokens, 0)
            elif not found.users:
                self._kept_tokens -= found.tokens
            if not found.users:
                self.reserved_tokens += found.tokens
            found.users += 1
        self._evict()
        return min(cached, call.input_tokens)

    def leave(self, call: LlmCall, output_tokens: int) -> None:
        """A stream that was taken in has ended: its prompt is kept while there is room.

        Args:
            call: Its prompt.
            output_tokens: Length of its answer.
        """
        self.reserved_tokens -= self._own_tokens(call, output_tokens)
        # The start of a prompt is used last, and so kept longest: without it the rest is worthless.
        for prefix_hash in reversed(call.prefix_hashes):
            one = self._segments[prefix_hash]
            one.users -= 1
            one.computed = True
            self._segments.move_to_end(prefix_hash)
            if not one.users:
                self.reserved_tokens -= one.tokens
                self._kept_tokens += one.tokens
        self._evict()

    def clear(self) -> None:
        """Forget everything, as a lost machine does."""
        self._segments.clear()
        self._kept_tokens = self.reserved_tokens = 0

    def _own_tokens(self, call: LlmCall, output_tokens: int) -> int:
        """What a stream shares with nobody: the end of its prompt, and its answer."""
        return call.input_tokens - max(call.prefix_tokens, default=0) + output_tokens

    def _evict(self) -> None:
        room = max(0, self._capacity_tokens - self.reserved_tokens)
        if self._kept_tokens <= room:
            return
        for prefix_hash in [key for key, one in self._segments.items() if not one.users]:
            if self._kept_tokens <= room:
                return
            self._kept_tokens -= self._segments.pop(prefix_hash).tokens


def _segments(call: LlmCall) -> list[tuple[int, int]]:
    """Hash and length of each part of a prompt, from its start."""
    starts = (0, *call.prefix_tokens[:-1])
    ends = call.prefix_tokens
    return [
        (prefix_hash, end - start)
        for prefix_hash, start, end in zip(call.prefix_hashes, starts, ends, strict=True)
    ]
