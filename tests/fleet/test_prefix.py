from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.task import LlmCall
from steelyard.fleet.prefix import PrefixIndex
from steelyard.fleet.prefix_cache import Believed, PrefixCache
from steelyard.sim.kv_cache import KvCache

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


def call_of(conversation: int, messages: int) -> LlmCall:
    """A prompt of some messages; all conversations begin with the same one."""
    return LlmCall(
        model="m",
        input_tokens=10 * messages,
        max_output_tokens=5,
        prefix_hashes=(0, *(100 * conversation + at for at in range(1, messages))),
        prefix_tokens=tuple(10 * (at + 1) for at in range(messages)),
    )


@given(
    done=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.booleans()), max_size=40),
    kv_tokens=st.integers(60, 300),
)
def test_what_is_believed_is_what_a_simulated_engine_of_that_memory_holds(
    done: list[tuple[int, int, bool]], kv_tokens: int
) -> None:
    belief, engine = PrefixCache(kv_tokens), KvCache(kv_tokens)
    running: list[tuple[LlmCall, Believed]] = []
    for conversation, messages, waits in done:
        call = call_of(conversation, messages)
        if engine.fits(call, 5):
            told = belief.begin(call.prefix_hashes, call.prefix_tokens, call.input_tokens + 5)[0]
            assert told.tokens == engine.take(call, 5)
            running.append((call, told))
        while running and not waits:
            one, told = running.pop(0)
            belief.end(one.prefix_hashes, told, told.tokens)
            belief.add(one.prefix_hashes, one.prefix_tokens)
            engine.leave(one, 5)


def test_an_engine_that_lost_a_prompt_has_lost_all_that_was_used_before_it() -> None:
    cache = PrefixCache()
    for number in (1, 2, 3):
        cache.add((number,), (100,))
    told, _ = cache.begin((2, 22), (100, 200), 200)
    assert told.tokens == 100
    assert cache.end((2, 22), told, 0) == [1, 2]
    assert cache.cached_tokens((3,), (100,)) == 100


def test_an_engine_that_tells_nothing_or_finds_whole_blocks_only_is_believed() -> None:
    cache = PrefixCache()
    cache.add((1,), (100,))
    told, _ = cache.begin((1,), (100,), 100)
    assert cache.end((1,), told, None) == []
    assert cache.end((1,), told, 96) == []


def test_what_began_before_a_restart_takes_nothing_from_what_began_after_it() -> None:
    index, place = PrefixIndex(), (0, 0)
    index.size(0, 1000)
    index.add(place, (1,), (400,))
    before = index.begin(place, (1,), (400,), 900)
    index.clear(place)
    after = index.begin(place, (2,), (400,), 900)
    index.add(place, (1,), (100,))
    # Had the first one given back room that it has no more, both would fit.
    index.end(place, (1,), before, 0)
    index.add(place, (3,), (300,))
    assert index.cached_tokens(place, (3,), (300,)) == 0
    index.end(place, (2,), after, None)
    index.add(place, (3,), (300,))
    assert index.cached_tokens(place, (3,), (300,)) == 300
