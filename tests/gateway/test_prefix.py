"""Prefixes are equal exactly when the prompts begin equally."""

from hypothesis import given
from hypothesis import strategies as st

from steelyard.gateway.prefix import chat_prefixes, text_prefixes

MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=30)}
)
MESSAGES = st.lists(MESSAGE, min_size=1, max_size=6)


@given(MESSAGES, MESSAGES)
def test_two_chats_share_as_many_boundaries_as_messages(
    one: list[dict[str, str]], two: list[dict[str, str]]
) -> None:
    shared = 0
    while shared < min(len(one), len(two)) and one[shared] == two[shared]:
        shared += 1
    left, right = chat_prefixes("m", one, []), chat_prefixes("m", two, [])
    assert left.hashes[:shared] == right.hashes[:shared]
    assert left.tokens[:shared] == right.tokens[:shared]
    assert not set(left.hashes[shared:]) & set(right.hashes[shared:])


@given(MESSAGES)
def test_tokens_ascend_and_end_at_the_prompts_length(messages: list[dict[str, str]]) -> None:
    prefixes = chat_prefixes("m", messages, [])
    assert list(prefixes.tokens) == sorted(set(prefixes.tokens))
    assert prefixes.input_tokens == prefixes.tokens[-1]
    assert all(0 <= one < 2**63 for one in prefixes.hashes)


def test_model_and_tools_are_part_of_every_prefix() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tool = {"type": "function", "function": {"name": "f"}}
    hashes = {
        chat_prefixes(model, messages, tools).hashes for model in "ab" for tools in ([], [tool])
    }
    assert len(hashes) == 4


def test_the_order_of_fields_makes_no_other_prefix() -> None:
    one = chat_prefixes("m", [{"role": "user", "content": "Hi"}], [])
    assert one == chat_prefixes("m", [{"content": "Hi", "role": "user"}], [])


def test_hashes_are_the_same_in_every_process_and_release() -> None:
    prefixes = chat_prefixes("m", [{"role": "user", "content": "Hi"}], [])
    assert prefixes.hashes == (4109660870189837253,)


def test_an_image_does_not_count_by_the_length_of_its_url() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    assert chat_prefixes("m", [message], []).input_tokens < 400


@given(st.text(max_size=9000), st.text(max_size=100))
def test_a_longer_completion_prompt_shares_the_whole_blocks(prompt: str, more: str) -> None:
    short, long = text_prefixes("m", prompt), text_prefixes("m", prompt + more)
    whole = len(prompt.encode()) // 4096
    assert short.hashes[:whole] == long.hashes[:whole]
    assert short.tokens[:whole] == long.tokens[:whole]
