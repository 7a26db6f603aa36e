"""How many tokens fit a machine's memory is derived from shapes and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import FigureError
from steelyard.perf.kv_memory import derived_kv_tokens, kv_bytes_per_token

SIZES = st.floats(min_value=1.0, max_value=1e13)


def test_llama_8b_takes_128_kib_per_token() -> None:
    assert kv_bytes_per_token(layers=32, kv_heads=8, head_width=128) == 128 * 1024


def test_a_model_that_does_not_fit_leaves_no_room() -> None:
    assert derived_kv_tokens(24e9, 30e9, 131072.0) == 0


@given(SIZES, SIZES, SIZES)
def test_what_is_held_and_the_weights_fit_the_share_of_the_memory(
    memory: float, weights: float, token: float
) -> None:
    tokens = derived_kv_tokens(memory, weights, token)
    assert tokens == 0 or weights + tokens * token <= 0.9 * memory * (1.0 + 1e-9)


def test_a_token_without_bytes_is_refused() -> None:
    with pytest.raises(FigureError, match="above zero"):
        derived_kv_tokens(80e9, 16e9, 0.0)
