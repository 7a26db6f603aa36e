from hypothesis import given
from hypothesis import strategies as st

from steelyard.fleet.prefix import PrefixCache, PrefixIndex

places = st.tuples(st.integers(0, 1), st.integers(0, 2))
prompts = st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True)
actions = st.lists(st.tuples(st.sampled_from(["add", "clear"]), places, prompts), max_size=30)


def tokens(hashes: list[int]) -> tuple[int, ...]:
    return tuple(10 * (n + 1) for n in range(len(hashes)))


@given(done=actions, asked=prompts)
def test_the_index_answers_as_each_replicas_cache_does(
    done: list[tuple[str, tuple[int, int], list[int]]], asked: list[int]
) -> None:
    index = PrefixIndex()
    caches = {(pool, replica): PrefixCache() for pool in range(2) for replica in range(3)}
    for action, place, hashes in done:
        if action == "add":
            index.add(place, tuple(hashes), tokens(hashes))
            caches[place].add(tuple(hashes), tokens(hashes))
        else:
            index.clear(place)
            caches[place].clear()
    expected = {
        place: cache.cached_tokens(tuple(asked), tokens(asked)) for place, cache in caches.items()
    }
    held = index.holders(tuple(asked), tokens(asked))
    assert held == {place: count for place, count in expected.items() if count}
    for place, count in expected.items():
        assert index.cached_tokens(place, tuple(asked), tokens(asked)) == count


def test_the_least_recently_used_prefix_is_forgotten_first() -> None:
    cache = PrefixCache(max_entries=2)
    cache.add((1,), (10,))
    cache.add((2,), (20,))
    cache.add((1,), (10,))
    assert cache.add((3,), (30,)) == [2]
    assert cache.cached_tokens((1,), (10,)) == 10
    assert cache.cached_tokens((2,), (20,)) == 0


def test_a_pool_that_shrinks_loses_the_caches_of_the_replicas_that_go() -> None:
    index = PrefixIndex()
    index.add((0, 0), (1,), (10,))
    index.add((0, 2), (1,), (10,))
    index.shrink(0, 1)
    assert index.holders((1,), (10,)) == {(0, 0): 10}
