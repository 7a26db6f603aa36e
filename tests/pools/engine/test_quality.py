import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.quality import perplexity


@given(st.lists(st.floats(-20, 0), min_size=1), st.floats(0, 5))
def test_perplexity_is_at_least_one_and_grows_with_the_surprise(
    logprobs: list[float], more: float
) -> None:
    found = perplexity(logprobs)
    assert found >= 1
    worse = perplexity([one - more for one in logprobs])
    assert worse == pytest.approx(found * math.exp(more), rel=1e-9)


def test_a_text_without_tokens_proves_nothing() -> None:
    assert perplexity([]) == math.inf
