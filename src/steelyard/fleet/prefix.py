"""Which prompt prefixes does a replica still hold?"""

from collections import OrderedDict, deque
from typing import NamedTuple

# A message boundary costs one entry; engines hold some hundred agent contexts at most.
_MAX_ENTRIES = 4096
# So many prompts are told to other processes: those of some tenths of a second.
_MAX_RECENT = 128


class PrefixCache:
    """The prefixes one replica is believed to hold, least recently used ones forgotten first.

    >>> cache = PrefixCache()
    >>> cache.add((11, 12), (100, 250))
    []
    >>> cache.cached_tokens((11, 99), (100, 300))
    100
    """

    def __init__(self, max_entries: int = _MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._tokens: OrderedDict[int, int] = OrderedDict()

    def add(self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]) -> list[int]:
        """Remember the prefixes of a prompt that was computed here.

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.

        Returns:
            Hashes that were forgotten to make room.
        """
        for prefix_hash, tokens in zip(prefix_hashes, prefix_tokens, strict=True):
            self._tokens[prefix_hash] = tokens
            self._tokens.move_to_end(prefix_hash)
        forgotten: list[int] = []
        while len(self._tokens) > self._max_entries:
            forgotten.append(self._tokens.popitem(last=False)[0])
        return forgotten

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
            if prefix_hash in self._tokens:
                return tokens
        return 0

    def clear(self) -> list[int]:
        """Forget everything, as a restarted replica does.

        Returns:
            Hashes that were forgotten.
        """
        forgotten = list(self._tokens)
        self._tokens.clear()
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
        # Most prefixes have one holder; a dict for each of those would be half of the index.
        self._places: dict[int, Place | dict[Place, None]] = {}
        self._recent: deque[tuple[Place, RecentPrefix]] = deque(maxlen=_MAX_RECENT)
        self._learned = 0

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
        cache = self._caches.get(place)
        if cache is None:
            cache = self._caches[place] = PrefixCache()
        forgotten = cache.add(prefix_hashes, prefix_tokens)
        for prefix_hash in prefix_hashes:
            known = self._places.get(prefix_hash)
            if known is None:
                self._places[prefix_hash] = place
            elif isinstance(known, dict):
                known[place] = None
            elif known != place:
                self._places[prefix_hash] = {known: None, place: None}
        if forgotten:
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

    def _forget(self, place: Place, forgotten: list[int]) -> None:
        for prefix_hash in forgotten:
            places = self._places[prefix_hash]
            if isinstance(places, dict):
                del places[place]
            if places in ({}, place):
                del self._places[prefix_hash]
