"""What is set aside for a step is never less than what it comes to cost."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import pool_spec

from steelyard.domain.offering import TokenPrice
from steelyard.domain.task import LlmCall, Step
from steelyard.gateway.keys_costs import MostCosts
from steelyard.perf.cost import llm_step_usd

HOURLY = pool_spec("hourly", "m")
PRICE = TokenPrice(usd_per_input_token=3e-6, usd_per_cached_token=1e-6, usd_per_output_token=7e-6)
VENDOR = msgspec.structs.replace(pool_spec("vendor", "m"), usd_per_hour=0.0, token_price=PRICE)
POOLS = (HOURLY, VENDOR, pool_spec("other", "n"))


def step(*pools: str, model: str = "m") -> Step:
    call = LlmCall(model=model, input_tokens=1, max_output_tokens=1)
    return Step(task_id="t", step_id=0, agent="a", name="s", call=call, pools=pools)


@given(
    text_bytes=st.integers(0, 20_000),
    tokens_frac=st.floats(0.0, 1.0),
    limit=st.none() | st.integers(1, 4000),
    answer_frac=st.floats(0.0, 1.0),
)
def test_it_covers_every_pool_whatever_the_tokenizer_makes_of_the_text(
    text_bytes: int, tokens_frac: float, limit: int | None, answer_frac: float
) -> None:
    most_usd = MostCosts().usd(POOLS, step(), limit, b"x" * text_bytes)
    prompt = min(8192, int(tokens_frac * text_bytes))
    output = int(answer_frac * (8192 if limit is None else limit))
    for spec in (HOURLY, VENDOR):
        tokens = (float(prompt), 0.0, float(output))
        assert llm_step_usd(spec, "m", tokens, spec.usd_per_hour) <= most_usd


def test_pictures_count_as_the_whole_context() -> None:
    costs = MostCosts()
    text = costs.usd(POOLS, step(), 1, b'{"content": "x"}')
    assert costs.usd(POOLS, step(), 1, b'{"image_url": "x"}') > 10.0 * text
    elsewhere = b'{"previous_response_id": "x"}'
    assert costs.usd(POOLS, step(), 1, elsewhere) == costs.usd(POOLS, step(), 1, b'"image_url"')


def test_a_picture_whose_name_is_written_in_escapes_is_one() -> None:
    costs = MostCosts()
    plain = costs.usd(POOLS, step(), 1, b'{"image_url": "x"}')
    assert costs.usd(POOLS, step(), 1, b'{"image\\u005furl": "x"}') == plain
    assert costs.usd(POOLS, step(), 1, b'{"\\u0069mage_url": "x"') == plain
    assert costs.usd(POOLS, step(), 1, b'{"content": "\\u0041"}') < 0.1 * plain


def test_what_a_server_keeps_counts_as_the_whole_context() -> None:
    costs = MostCosts()
    text = costs.usd(POOLS, step(), 1, b'{"input": "x"}')
    for kept in (b'{"previous_response_id": "r"}', b'{"type": "item_reference", "id": "i"}'):
        assert costs.usd(POOLS, step(), 1, kept) > 10.0 * text


def test_only_allowed_pools_count_and_changed_ones_anew() -> None:
    costs = MostCosts()
    both = costs.usd(POOLS, step(), 100, b"x" * 1000)
    assert costs.usd(POOLS, step("hourly"), 100, b"x" * 1000) <= both
    assert costs.usd(POOLS, step("other"), 100, b"") == 0.0
    dearer = msgspec.structs.replace(HOURLY, usd_per_hour=1e6)
    assert costs.usd((dearer, VENDOR), step(), 100, b"x" * 1000) > both
