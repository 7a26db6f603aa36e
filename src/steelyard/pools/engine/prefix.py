"""Which part of a prompt is already computed? A mirror of the engine's prefix cache.

The engine does not tell how much of a prompt it found in its cache. It caches whole blocks by
their content and everything before, and drops the least recently used: this does the same over
token ids, so the answer is an estimate (it does not see blocks lost to memory pressure).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence


class PrefixMirror:
    """Blocks that have been computed, least recently used first.

    Args:
        block_tokens: Tokens per block.
        capacity_blocks: Blocks that fit the cache.

    >>> mirror = PrefixMirror(block_tokens=2, capacity_blocks=8)
    >>> mirror.insert(block_keys([1, 2, 3, 4, 5], 2))
    >>> mirror.cached_tokens(block_keys([1, 2, 3, 4, 6, 7], 2))
    4
    """

    def __init__(self, block_tokens: int, capacity_blocks: int) -> None:
        self._block_tokens = block_tokens
        self._capacity_blocks = capacity_blocks
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def cached_tokens(self, keys: Sequence[bytes]) -> int:
        """How many leading tokens of the sequence with these block keys are computed?"""
        cached_blocks = 0
        for key in keys:
            if key not in self._blocks:
                break
            self._blocks.move_to_end(key)
            cached_blocks += 1
        return cached_blocks * self._block_tokens

    def insert(self, keys: Sequence[bytes]) -> None:
        """Note that the engine has computed the blocks with these keys."""
        for key in keys:
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity_blocks:
            self._blocks.popitem(last=False)


def block_keys(token_ids: Sequence[int], block_tokens: int) -> list[bytes]:
    """One key per whole block, over the block and everything before it."""
    keys: list[bytes] = []
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(token_ids) - block_tokens + 1, block_tokens):
        block = token_ids[start : start + block_tokens]
        digest.update(b"".join(token.to_bytes(4, "little") for token in block))
        keys.append(digest.digest())
    return keys
