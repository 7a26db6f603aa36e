from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.prefix import PrefixMirror, block_keys

TOKENS = st.lists(st.integers(0, 3), max_size=30)


@given(TOKENS, TOKENS)
def test_finds_whole_blocks_of_the_shared_prefix(first: list[int], second: list[int]) -> None:
    mirror = PrefixMirror(block_tokens=4, capacity_blocks=100)
    mirror.insert(block_keys(first, 4))
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    assert mirror.cached_tokens(block_keys(second, 4)) == shared // 4 * 4


def test_forgets_what_was_not_used_for_longest() -> None:
    mirror = PrefixMirror(block_tokens=1, capacity_blocks=2)
    for token in (1, 2):
        mirror.insert(block_keys([token], 1))
    assert mirror.cached_tokens(block_keys([1], 1)) == 1
    mirror.insert(block_keys([3], 1))
    assert mirror.cached_tokens(block_keys([1], 1)) == 1
    assert mirror.cached_tokens(block_keys([2], 1)) == 0
