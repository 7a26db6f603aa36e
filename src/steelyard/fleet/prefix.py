"""Which prompt prefixes do the replicas of a fleet still hold?"""

from collections import deque
from typing import NamedTuple

from steelyard.fleet.prefix_cache import Believed, PrefixCache

# So many prompts are told to other processes: those of some tenths of a second.
_MAX_RECENT = 128

# (index of the pool, index of the replica in it)
Place = tuple[int, int]


class RecentPrefix(NamedTuple):
    """The whole of a prompt that was computed lately: what the next step of its task begins with.

    Attributes:
        number: Grows from one to the next.
        prefix_hash: Hash at its last boundary.
        tokens: Tokens up to there.
        held_tokens: Those of them that were held before.
    """

    number: int
    prefix_hash: int
    tokens: int
    held_tokens: int = 0


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
        # Most prefixes have one holder; a dict for each of those would be half of the index.
        self._places: dict[int, Place | dict[Place, None]] = {}
        self._recent: deque[tuple[Place, RecentPrefix]] = deque(maxlen=_MAX_RECENT)
        self._learned = 0
        self._made = 0
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
        """A replica does not compute a prompt any more; see `PrefixCache.end`.

        What began before a restart holds nothing of the memory after it, and tells nothing of it.
        """
        cache = self._caches.get(place)
        if cache is not None and cache.number == believed.cache:
            self._forget(place, cache.end(prefix_hashes, believed, found_tokens))

    def learn(
        self, place: Place, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]
    ) -> None:
        """As `add`, of a prompt that other processes are to hear of."""
        held_tokens = self.cached_tokens(place, prefix_hashes, prefix_tokens)
        self.add(place, prefix_hashes, prefix_tokens)
        if prefix_hashes:
            self._learned += 1
            told = RecentPrefix(self._learned, prefix_hashes[-1], prefix_tokens[-1], held_tokens)
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
            self._note(place, prefix_hash)
        if forgotten:
            self._forget(place, forgotten)

    def add_told(self, place: Place, told: RecentPrefix) -> None:
        """Remember a prompt that another process has learned of.

        Thin: of its boundaries the last alone is told, so that its start may be forgotten first.
        """
        one = ((told.prefix_hash,), (told.tokens,))
        forgotten = self._cache(place).add(*one, since_tokens=told.held_tokens)
        self._note(place, told.prefix_hash)
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
            places = self._places.get(prefix_hash)
            if isinstance(places, dict):
                for place in places:
                    held.setdefault(place, tokens)
            elif places is not None:
                held.setdefault(places, tokens)
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

    def _note(self, place: Place, prefix_hash: int) -> None:
        known = self._places.get(prefix_hash)
        if known is None:
            self._places[prefix_hash] = place
        elif isinstance(known, dict):
            known[place] = None
        elif known != place:
            self._places[prefix_hash] = {known: None, place: None}

    def _cache(self, place: Place) -> PrefixCache:
        cache = self._caches.get(place)
        if cache is None:
            self._made += 1
            max_tokens = self._max_tokens.get(place[0])
            cache = self._caches[place] = PrefixCache(max_tokens, number=self._made)
        return cache

    def _forget(self, place: Place, forgotten: list[int]) -> None:
        for prefix_hash in forgotten:
            # What was never computed to the end is in no place, or in others.
            places = self._places.get(prefix_hash)
            if isinstance(places, dict):
                places.pop(place, None)
            if places in ({}, place):
                del self._places[prefix_hash]
