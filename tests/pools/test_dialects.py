"""The same request in the words of different engines."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import PoolRejectedError
from steelyard.pools.backend import JsonObject, LlmRequest, RelayRequest
from steelyard.pools.dialects import Engine, in_dialect, schema_of, spoken_relay, spoken_request

SCHEMA: JsonObject = {"type": "object"}
HELD: JsonObject = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
}
ENGINES: list[Engine] = ["openai", "vllm", "sglang", "llama.cpp", "ollama", "mistral"]


@pytest.mark.parametrize(
    ("engine", "before", "after"),
    [
        ("openai", {"max_tokens": 9, "seed": 1}, {"max_completion_tokens": 9, "seed": 1}),
        ("mistral", {"max_completion_tokens": 9, "seed": 1}, {"max_tokens": 9, "random_seed": 1}),
        ("ollama", {"max_completion_tokens": 9}, {"max_tokens": 9}),
        ("llama.cpp", {"max_completion_tokens": 9}, {"max_tokens": 9}),
        ("vllm", {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ("vllm", {"guided_json": SCHEMA}, {"structured_outputs": {"json": SCHEMA}}),
        ("vllm", {"guided_regex": "a"}, {"structured_outputs": {"regex": "a"}}),
        ("sglang", {"guided_regex": "a"}, {"regex": "a"}),
        ("sglang", {"structured_outputs": {"grammar": "g"}}, {"ebnf": "g"}),
        ("openai", {"guided_json": SCHEMA}, HELD),
        ("llama.cpp", {"structured_outputs": {"json": '{"type": "object"}'}}, HELD),
        ("openai", {**HELD, "guided_json": SCHEMA}, HELD),
        # The newer limit is the one that the gateway counts with; one name reaches the engine.
        ("openai", {"max_tokens": 9, "max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("ollama", {"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ("llama.cpp", {"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
        ("mistral", {"seed": 1, "random_seed": 2}, {"random_seed": 2}),
    ],
)
def test_fields_are_renamed(engine: Engine, before: JsonObject, after: JsonObject) -> None:
    assert in_dialect(before, engine) == after


def test_what_an_engine_cannot_be_held_to_is_refused_in_one_line() -> None:
    with pytest.raises(PoolRejectedError, match="guided_regex by openai") as caught:
        in_dialect({"guided_regex": "a"}, "openai")
    assert "\n" not in str(caught.value)
    with pytest.raises(PoolRejectedError, match="guided_json"):
        in_dialect({"guided_json": "no JSON"}, "mistral")


@given(
    st.dictionaries(st.sampled_from(["model", "messages", "top_k", "min_p", "x"]), st.integers()),
    st.sampled_from(ENGINES),
)
def test_fields_without_another_name_are_untouched(document: JsonObject, engine: Engine) -> None:
    assert in_dialect(document, engine) is document


@given(
    st.dictionaries(
        st.sampled_from(["max_tokens", "max_completion_tokens", "seed", "guided_json", "x"]),
        st.just(SCHEMA),
    ),
    st.sampled_from(ENGINES),
)
def test_a_translated_request_is_not_translated_again(document: JsonObject, engine: Engine) -> None:
    once = in_dialect(document, engine)
    assert in_dialect(once, engine) == once


def test_a_schema_is_read_from_both_of_vllms_names() -> None:
    assert schema_of({"guided_json": SCHEMA}) == SCHEMA
    assert schema_of({"structured_outputs": {"json": SCHEMA}}) == SCHEMA
    assert schema_of({"structured_outputs": 7, "guided_json": "{"}) is None


def test_a_request_in_the_right_words_keeps_its_bytes() -> None:
    request = LlmRequest(kind="chat", model="m", raw_body={"model": "m", "max_tokens": 9})
    asked = RelayRequest(request=request, body=b'{ "model":"m","max_tokens":9 }', stream=False)
    assert spoken_relay(asked, "vllm") is asked
    assert spoken_relay(asked, "") is asked
    changed = spoken_relay(asked, "openai")
    assert msgspec.json.decode(changed.body) == {"model": "m", "max_completion_tokens": 9}


def test_a_request_without_the_callers_body_is_translated_too() -> None:
    request = LlmRequest(kind="chat", model="m", max_output_tokens=9)
    assert spoken_request(request, "openai").raw_body["max_completion_tokens"] == 9
    completion = LlmRequest(kind="completion", model="m", max_output_tokens=9)
    assert spoken_request(completion, "openai") is completion
