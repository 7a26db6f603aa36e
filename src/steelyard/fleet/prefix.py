"""Which prompt prefixes does a replica still hold?"""

from collections import OrderedDict

# A message boundary costs one entry; engines hold some hundred agent contexts at most.
_MAX_ENTRIES = 4096


class PrefixCache:
    """The prefixes one replica is believed to hold, least recently used ones forgotten first.

    >>> cache = PrefixCache()
    >>> cache.add((11, 12), (100, 250))
    >>> cache.cached_tokens((11, 99), (100, 300))
    100
    """

    def __init__(self, max_entries: int = _MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._tokens: OrderedDict[int, int] = OrderedDict()

    def add(self, prefix_hashes: tuple[int, ...], prefix_tokens: tuple[int, ...]) -> None:
        """Remember the prefixes of a prompt that was computed here.

        Args:
            prefix_hashes: One hash per message boundary, shortest first.
            prefix_tokens: Tokens up to each boundary.
        """
        for prefix_hash, tokens in zip(prefix_hashes, prefix_tokens, strict=True):
            self._tokens[prefix_hash] = tokens
            self._tokens.move_to_end(prefix_hash)
        while len(self._tokens) > self._max_entries:
            self._tokens.popitem(last=False)

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

    def clear(self) -> None:
        """Forget everything, as a restarted replica does."""
        self._tokens.clear()
