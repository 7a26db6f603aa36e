"""Which prompt prefixes does a replica still hold?"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

# A message boundary costs one entry; engines hold some hundred agent contexts at most.
_MAX_ENTRIES = 4096
# Counts of messages' tokens are estimates, and engines find whole blocks: an engine that finds less
# than this share of what it was believed to hold has lost it.
_FOUND_FRAC = 0.75
# So many prompts are told to other processes: those of some tenths of a second.
_MAX_RECENT = 128


class Believed(NamedTuple):
    """What a replica was believed to hold of a prompt when its step started.

    Attributes:
        tokens: Tokens at the start of the prompt.
        used: Number of the last use of the longest prefix; 0 where none was held.
        own_tokens: Tokens that the step shares with nobody; None where nothing was taken.
    """

    tokens: int
    used: int
    own_tokens: int | None


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

    >>> cache = PrefixCache()
    >>> cache.add((11, 12), (100, 250))
    []
    >>> cache.cached_tokens((11, 99), (100, 300))
    100
    >>> small = PrefixCache(max_tokens=300)
    >>> small.add((11, 12), (100, 250)), small.add((11, 13), (100, 200))
    ([], [12])
    """

    def __init__(self, max_tokens: int | None = None, max_entries: int = _MAX_ENTRIES) -> None:
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
            return Believed(tokens, used, None), []
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
        return Believed(tokens, used, own_tokens), self._make_room()

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

    def add(self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]) -> list[int]:
        """Remember the prefixes of a prompt that was computed here.

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.

        Returns:
            Hashes that were forgotten to make room.
        """
        self._uses += 1
        starts = (0, *prefix_tokens[:-1])
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


# (index of the pool, index of the replica in it)
Place = tuple[int, int]


class RecentPrefix(NamedTuple):
    """The whole of a prompt that was computed lately: what the next step of its task begins with.

    Attributes:
        number: Grows from one to the next.
        prefix_hash: Hash at its last boundary.
        tokens: Tokens up to there.
    """

    number: int
    prefix_hash: int
    tokens: int


class PrefixIndex:
    """The prefix caches of all replicas, and for each prefix the replicas that hold it.

    A prompt is looked up by its boundaries, whatever the number of replicas.

    >>> index = PrefixIndex()
    >>> index.add((0, 3), (11, 12), (100, 250))
    >>> index.holders((11, 99), (100, 300))
    {(0, 3): 100}
    """

    def __init__(self) -> None:
        self._caches: dict[Place, PrefixCache] = {}
        self._places: dict[int, dict[Place, None]] = {}
        self._recent: deque[tuple[Place, RecentPrefix]] = deque(maxlen=_MAX_RECENT)
        self._learned = 0
        self._max_tokens: dict[int, int | None] = {}

    def size(self, pool: int, max_tokens: int | None) -> None:
        """So many tokens the memory of each replica of a pool holds; None where nobody knows."""
        if self._max_tokens.get(pool) == max_tokens:
            return
        self._max_tokens[pool] = max_tokens
        for place, cache in self._caches.items():
            if place[0] == pool:
                self._forget(place, cache.resize(max_tokens))

    def begin(
        self,
        place: Place,
        prefix_hashes: tuple[int, ...],
        prefix_tokens: tuple[int, ...],
        whole_tokens: int,
    ) -> Believed:
        """A replica computes a prompt; see `PrefixCache.begin`."""
        believed, forgotten = self._cache(place).begin(prefix_hashes, prefix_tokens, whole_tokens)
        self._forget(place, forgotten)
        return believed

    def end(
        self,
        place: Place,
        prefix_hashes: tuple[int, ...],
        believed: Believed,
        found_tokens: int | None,
    ) -> None:
        """A replica does not compute a prompt any more; see `PrefixCache.end`."""
        cache = self._caches.get(place)
        if cache is not None:
            self._forget(place, cache.end(prefix_hashes, believed, found_tokens))

    def learn(
        self, place: Place, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]
    ) -> None:
        """As `add`, of a prompt that other processes are to hear of."""
        self.add(place, prefix_hashes, prefix_tokens)
        if prefix_hashes:
            self._learned += 1
            told = RecentPrefix(self._learned, prefix_hashes[-1], prefix_tokens[-1])
            self._recent.append((place, told))

    def recent(self, place: Place) -> tuple[RecentPrefix, ...]:
        """Which prompts were learned of a replica lately, the oldest first?"""
        return tuple(told for where, told in self._recent if where == place)

    def add(
        self, place: Place, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]
    ) -> None:
        """Remember the prefixes of a prompt that a replica has computed.

        Args:
            place: The replica.
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.
        """
        forgotten = self._cache(place).add(prefix_hashes, prefix_tokens)
        for prefix_hash in prefix_hashes:
            self._places.setdefault(prefix_hash, {})[place] = None
        self._forget(place, forgotten)

    def holders(
        self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]
    ) -> dict[Place, int]:
        """Which replicas hold how many tokens at the start of this prompt?

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.

        Returns:
            Tokens per replica; those that hold nothing are left out.
        """
        held: dict[Place, int] = {}
        for prefix_hash, tokens in zip(
            reversed(prefix_hashes), reversed(prefix_tokens), strict=True
        ):
            for place in self._places.get(prefix_hash, ()):
                held.setdefault(place, tokens)
        return held

    def cached_tokens(
        self, place: Place, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]
    ) -> int:
        """How many tokens at the start of this prompt does one replica hold?

        Args:
            place: The replica.
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.
        """
        cache = self._caches.get(place)
        return 0 if cache is None else cache.cached_tokens(prefix_hashes, prefix_tokens)

    def clear(self, place: Place) -> None:
        """Forget everything that a replica held.

        Args:
            place: The replica.
        """
        cache = self._caches.pop(place, None)
        if cache is not None:
            kept = [one for one in self._recent if one[0] != place]
            self._recent = deque(kept, maxlen=_MAX_RECENT)
            self._forget(place, cache.clear())

    def shrink(self, pool: int, replicas: int) -> None:
        """Forget the replicas of a pool beyond its new size.

        Args:
            pool: Index of the pool.
            replicas: Replicas that stay.
        """
        for place in [one for one in self._caches if one[0] == pool and one[1] >= replicas]:
            self.clear(place)

    def _cache(self, place: Place) -> PrefixCache:
        cache = self._caches.get(place)
        if cache is None:
            cache = self._caches[place] = PrefixCache(self._max_tokens.get(place[0]))
        return cache

    def _forget(self, place: Place, forgotten: list[int]) -> None:
        for prefix_hash in forgotten:
            places = self._places.get(prefix_hash)
            # What was never computed to the end is in no place.
            if places is None:
                continue
            places.pop(place, None)
            if not places:
                del self._places[prefix_hash]
