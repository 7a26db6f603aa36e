"""Which prompt prefixes does one replica still hold?"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

# A message boundary costs one entry; engines hold some hundred agent contexts at most.
_MAX_ENTRIES = 4096
# Counts of messages' tokens are estimates, and engines find whole blocks: an engine that finds less
# than this share of what it was believed to hold has lost it.
_FOUND_FRAC = 0.75


class Believed(NamedTuple):
    """What a replica was believed to hold of a prompt when its step started.

    Attributes:
        tokens: Tokens at the start of the prompt.
        used: Number of the last use of the longest prefix; 0 where none was held.
        own_tokens: Tokens that the step shares with nobody; None where nothing was taken.
        cache: Number of the cache that told; a replica that restarts has another one.
    """

    tokens: int
    used: int
    own_tokens: int | None
    cache: int = 0


NOTHING_BELIEVED = Believed(0, 0, None)
"""Of a tool, or a step that has not started."""


@dataclass(slots=True)
class _Segment:
    """Tokens up to a boundary, those since the one before, and who needs them.

    Attributes:
        end_tokens: Tokens up to the boundary.
        tokens: Tokens since the boundary before it.
        used: Number of the last use.
        users: Steps that run on it.
        computed: Whether one of them has ended: before, the tokens are on their way.
    """

    end_tokens: int
    tokens: int
    used: int
    users: int = 0
    computed: bool = False


class PrefixCache:
    """The prefixes one replica is believed to hold, least recently used ones forgotten first.

    Where the size of the replica's memory is known, what runs is held there, and prompts share what
    they have in common; the end of a prompt is forgotten before its start, as in vLLM's prefix
    cache (vllm/v1/core/kv_cache_manager.py, read 2026-11-23).

    Args:
        max_tokens: Tokens that the replica's memory holds; None where nobody knows.
        max_entries: Message boundaries that are remembered at most.
        number: Tells it from others of the same replica.

    >>> cache = PrefixCache()
    >>> cache.add((11, 12), (100, 250))
    []
    >>> cache.cached_tokens((11, 99), (100, 300))
    100
    >>> small = PrefixCache(max_tokens=300)
    >>> small.add((11, 12), (100, 250)), small.add((11, 13), (100, 200))
    ([], [12])
    """

    def __init__(
        self, max_tokens: int | None = None, max_entries: int = _MAX_ENTRIES, number: int = 0
    ) -> None:
        self.number = number
        self._max_tokens = max_tokens
        self._max_entries = max_entries
        self._held: OrderedDict[int, _Segment] = OrderedDict()
        # Of prefixes that no running step uses; of those that one does, and of what is shared with
        # nobody.
        self._kept_tokens = 0
        self._reserved_tokens = 0
        self._uses = 0

    def resize(self, max_tokens: int | None) -> list[int]:
        """The replica's memory is of another size.

        Returns:
            Hashes that were forgotten to make room.
        """
        self._max_tokens = max_tokens
        return self._make_room()

    def begin(
        self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...], whole_tokens: int
    ) -> tuple[Believed, list[int]]:
        """A prompt is being computed: where the memory's size is known, it takes room.

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.
            whole_tokens: Tokens of the prompt and its answer.

        Returns:
            What was held of it, and hashes that were forgotten to make room.
        """
        longest = self._longest(prefix_hashes)
        tokens, used = (0, 0) if longest is None else (longest.end_tokens, longest.used)
        if self._max_tokens is None:
            return Believed(tokens, used, None, self.number), []
        start = 0
        for prefix_hash, end in zip(prefix_hashes, prefix_tokens, strict=True):
            one = self._held.get(prefix_hash)
            if one is None:
                one = self._held[prefix_hash] = _Segment(end, end - start, self._uses)
                self._kept_tokens += one.tokens
            if not one.users:
                self._kept_tokens -= one.tokens
                self._reserved_tokens += one.tokens
            one.users += 1
            start = end
        own_tokens = max(0, whole_tokens - start)
        self._reserved_tokens += own_tokens
        return Believed(tokens, used, own_tokens, self.number), self._make_room()

    def end(
        self, prefix_hashes: tuple[int, ...], believed: Believed, found_tokens: int | None
    ) -> list[int]:
        """A prompt that began is not computed any more.

        Args:
            prefix_hashes: Its boundaries.
            believed: What `begin` told.
            found_tokens: How much of the prompt the engine says that it found; None where it does
                not say.

        Returns:
            Hashes that are forgotten: where the engine had lost what it was believed to hold, it
            has lost all that was used before that, too.
        """
        forgotten: list[int] = []
        if found_tokens is not None and found_tokens < _FOUND_FRAC * believed.tokens:
            forgotten = self._forget_until(believed.used)
        if believed.own_tokens is not None:
            # After a restart, what was begun before it takes no room.
            self._reserved_tokens = max(0, self._reserved_tokens - believed.own_tokens)
            for prefix_hash in prefix_hashes:
                self._release(prefix_hash)
        return forgotten

    def add(
        self,
        prefix_hashes: tuple[int, ...],
        prefix_tokens: tuple[int, ...],
        since_tokens: int = 0,
    ) -> list[int]:
        """Remember the prefixes of a prompt that was computed here.

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.
            since_tokens: Length of what comes before the first of them.

        Returns:
            Hashes that were forgotten to make room.
        """
        self._uses += 1
        starts = (since_tokens, *prefix_tokens[:-1])
        # The start of a prompt is used last, and so kept longest: without it the rest is worthless.
        for at in range(len(prefix_hashes) - 1, -1, -1):
            prefix_hash = prefix_hashes[at]
            one = self._held.get(prefix_hash)
            if one is None:
                tokens = prefix_tokens[at] - starts[at]
                one = self._held[prefix_hash] = _Segment(prefix_tokens[at], tokens, 0)
                self._kept_tokens += tokens
            else:
                self._held.move_to_end(prefix_hash)
            one.used, one.computed = self._uses, True
        return self._make_room()

    def cached_tokens(self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]) -> int:
        """How many tokens at the start of this prompt need not be computed again?

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.

        Returns:
            Tokens up to the longest boundary held here.
        """
        for prefix_hash, tokens in zip(
            reversed(prefix_hashes), reversed(prefix_tokens), strict=True
        ):
            one = self._held.get(prefix_hash)
            if one is not None and one.computed:
                return tokens
        return 0

    def clear(self) -> list[int]:
        """Forget everything, as a restarted replica does.

        Returns:
            Hashes that were forgotten.
        """
        forgotten = list(self._held)
        self._held.clear()
        self._kept_tokens = self._reserved_tokens = 0
        return forgotten

    def _longest(self, prefix_hashes: tuple[int, ...]) -> _Segment | None:
        for prefix_hash in reversed(prefix_hashes):
            one = self._held.get(prefix_hash)
            if one is not None and one.computed:
                return one
        return None

    def _release(self, prefix_hash: int) -> None:
        one = self._held.get(prefix_hash)
        if one is None or not one.users:
            return
        one.users -= 1
        if one.users:
            return
        self._reserved_tokens -= one.tokens
        self._kept_tokens += one.tokens

    def _forget_until(self, used: int) -> list[int]:
        old: list[int] = []
        for prefix_hash, one in self._held.items():
            if one.used > used:
                break
            if not one.users:
                old.append(prefix_hash)
        for prefix_hash in old:
            self._kept_tokens -= self._held.pop(prefix_hash).tokens
        return old

    def _make_room(self) -> list[int]:
        over = len(self._held) - self._max_entries
        kept_tokens, room = self._kept_tokens, math.inf
        if self._max_tokens is not None:
            room = max(0, self._max_tokens - self._reserved_tokens)
        if over <= 0 and kept_tokens <= room:
            return []
        forgotten: list[int] = []
        for prefix_hash, one in self._held.items():
            if len(forgotten) >= over and kept_tokens <= room:
                break
            if not one.users:
                forgotten.append(prefix_hash)
                kept_tokens -= one.tokens
        for prefix_hash in forgotten:
            del self._held[prefix_hash]
        self._kept_tokens = kept_tokens
        return forgotten
