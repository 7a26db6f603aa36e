"""What upstreams say in OpenAI's words, as far as it can be true."""

from typing import Any

import pytest

from steelyard.errors import PoolOverloadedError, PoolProtocolError
from steelyard.pools.endpoint_errors import ErrorReader
from steelyard.pools.wire import parse_usage


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": -2},
        {"prompt_tokens": 1e300, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": 2**63},
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": -1}},
    ],
)
def test_a_usage_that_no_call_can_have_is_refused(usage: dict[str, Any]) -> None:
    with pytest.raises(PoolProtocolError, match="_tokens is "):
        parse_usage({"usage": usage})


def test_cached_tokens_are_never_more_than_the_prompt() -> None:
    told = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 99}}
    usage = parse_usage({"usage": told})
    assert usage is not None
    assert (usage.input_tokens, usage.cached_tokens) == (5, 5)


@pytest.mark.parametrize(
    "retry_after",
    [
        "soon",
        "Mon, 20 Nov 99999999999999999999 19:12:08 GMT",
        "Mon, 20 Nov 1995 19:12:08 +99999999999999999999",
    ],
)
def test_a_time_to_retry_that_cannot_be_read_is_a_second(retry_after: str) -> None:
    error = ErrorReader("http://x", "").read(429, b"", retry_after)
    assert isinstance(error, PoolOverloadedError)
    assert error.retry_after_s == 1.0
