import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pools.engine.reference import TEXTS, TOKEN_IDS

from steelyard.pools.engine.embedding_model import find_embedding_model
from steelyard.pools.engine.wordpiece import WordPiece

PIECES = ("[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "##a", "##b", "cat", ".", "猫")
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}


def _told(text: str, *, lower_case: bool = True) -> list[str]:
    token_ids = WordPiece(VOCABULARY, lower_case=lower_case).encode(text)
    assert (PIECES[token_ids[0]], PIECES[token_ids[-1]]) == ("[CLS]", "[SEP]")
    return [PIECES[one] for one in token_ids[1:-1]]


def test_takes_the_longest_piece_first() -> None:
    assert _told("catab cat") == ["cat", "##a", "##b", "cat"]


def test_a_word_with_an_unknown_end_is_unknown_as_a_whole() -> None:
    assert _told("catz") == ["[UNK]"]
    assert _told("c" * 101) == ["[UNK]"]


def test_accents_and_case_are_taken_away() -> None:
    assert _told("ÁB\u0301".replace("B", "b")) == ["a", "##b"]
    assert _told("Cat", lower_case=False) == ["[UNK]"]


def test_punctuation_and_ideographs_are_words_and_control_characters_nothing() -> None:
    assert _told("a.b猫a") == ["a", ".", "b", "猫", "a"]
    assert _told("c\x00a\u200bt") == ["cat"]


def test_the_name_of_a_control_token_is_text() -> None:
    assert "[SEP]" not in _told("a [SEP] b")


@given(st.text())
def test_any_text_has_tokens(text: str) -> None:
    assert set(_told(text)) <= set(PIECES)


@pytest.mark.engine
def test_agrees_with_the_reference_tokenizer() -> None:
    lines = (find_embedding_model() / "vocab.txt").read_text("utf-8").splitlines()
    tokens = WordPiece({piece: number for number, piece in enumerate(lines)}, lower_case=True)
    for text, expected in zip(TEXTS, TOKEN_IDS, strict=True):
        assert tokens.encode(text) == expected, text
