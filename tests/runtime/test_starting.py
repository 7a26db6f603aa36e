"""What a pool that starts says of itself is taken over."""

import msgspec
from tests.runtime.conftest import llm_spec

from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.starting import with_memory


class TellingPool(ScriptedLlmPool):
    """Engines that tell how many tokens they hold."""

    cache_tokens = 78_464


def test_the_memory_that_engines_tell_of_is_marked_as_theirs() -> None:
    spec = with_memory(llm_spec(), TellingPool())
    assert (spec.kv_tokens, spec.kv_tokens_source) == (78_464, "engine")


def test_what_is_given_counts_and_what_nobody_tells_stays_unknown() -> None:
    given = msgspec.structs.replace(llm_spec(), kv_tokens=1000, kv_tokens_source="given")
    assert with_memory(given, TellingPool()) == given
    assert with_memory(llm_spec(), ScriptedLlmPool()) == llm_spec()
