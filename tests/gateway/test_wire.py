"""Bad requests are refused with the field and its value; nothing else gets through."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.gateway.chat import parse_chat
from steelyard.gateway.completions import parse_completion
from steelyard.gateway.embeddings import input_texts, input_tokens, parse_embeddings
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.wire import parse_json

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"model": 3}, "model", "model = 3"),
        ({"model": ""}, "model", 'model = ""'),
        ({"messages": []}, "messages", "messages = []"),
        ({"messages": [{"role": "boss", "content": ""}]}, "messages[0].role", '"boss"'),
        ({"messages": [{"content": ""}]}, "messages[0].role", "is missing"),
        ({"temperature": "hot"}, "temperature", '"hot"'),
        ({"temperature": 2.5}, "temperature", "2.5"),
        ({"temperature": True}, "temperature", "true"),
        ({"n": 0}, "n", "n = 0"),
        ({"n": 1000}, "n", "n = 1000"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens = 0"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"top_logprobs": 5}, "top_logprobs", "logprobs = true"),
        ({"stop": [1]}, "stop[0]", "stop[0] = 1"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream is true"),
        ({"response_format": {"type": 3}}, "response_format.type", "3"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "is missing"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": "maybe", "tools": [TOOL]}, "tool_choice", "maybe"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
            "'g'",
        ),
        ({"functions": []}, "functions", "tools"),
        ({"logit_bias": {"7": "x"}}, "logit_bias[...]", "logit_bias"),
    ],
)
def test_a_bad_chat_field_is_named_with_its_value(
    change: dict[str, Any], param: str, told: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse_chat({**CHAT, **change})
    assert caught.value.status == 400
    assert caught.value.param == param
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 4}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
    ],
)
def test_a_bad_completion_field_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_completion({"model": "m", "prompt": "Hi", **change})
    assert caught.value.param == param


def test_a_prompt_in_a_list_of_one_is_taken() -> None:
    parsed = parse_completion({"model": "m", "prompt": ["Hi"]})
    assert parsed.request.prompt == "Hi"
    assert parsed.request.max_output_tokens == 16


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [1.5]}, "input[0]"),
        ({"input": ["a", 1]}, "input[0]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": []}, "input"),
        ({"dimensions": "8"}, "dimensions"),
    ],
)
def test_a_bad_embeddings_field_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_embeddings({"model": "m", "input": "Hi", **change})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("given", "ids"), [([1, 2, 3], 3), ([[1, 2], [3]], 3), ("word", 0), (["word", "word"], 0)]
)
def test_texts_and_token_ids_can_be_embedded(given: Any, ids: int) -> None:
    asked = parse_embeddings({"model": "m", "input": given, "dimensions": 8})
    tokens = input_tokens(asked)
    # Of texts they are guessed, with what surrounds them.
    assert tokens == ids if ids else 1 <= tokens <= 12
    with pytest.raises(RequestError):
        input_texts(asked)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b'{"a": NaN}', b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"{} {}"],
)
def test_what_is_not_one_json_object_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_json(body, 64)


@pytest.mark.parametrize("depth", [65, 900, 200_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    with pytest.raises(RequestError, match="64 levels"):
        parse_json(body, 64)


def test_nesting_up_to_the_limit_is_taken() -> None:
    parse_json(b'{"a":' * 64 + b"1" + b"}" * 64, 64)
    parse_json(msgspec.json.encode({"a": [[]] * 500}), 64)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "messages", "n", "stop", "tools", "tool_choice", "response_format", "logit_bias"]
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_json_is_taken_or_refused_as_a_request_error(change: dict[str, Any]) -> None:
    told = ""
    try:
        parse_chat({**CHAT, **change})
    except RequestError as error:
        told = str(error)
    assert "\n" not in told
