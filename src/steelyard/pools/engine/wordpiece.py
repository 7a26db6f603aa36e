"""From a text to the tokens of a BERT model: normalise, split into words, and words into pieces.

The rules are those of BERT's own tokenizer (google-research/bert, tokenization.py), which
`tokenizers` calls BertNormalizer, BertPreTokenizer and WordPiece. Written down here because a
dependency of several megabytes for 80 lines would be the larger risk. One difference is meant: a
text that holds `[SEP]` or another control token holds these characters, and no control token.
"""

import unicodedata
from collections.abc import Iterator, Mapping

_MAX_WORD_CHARS = 100
_CONTINUED = "##"
# CJK ideographs, each of which is a word: the blocks that BERT's tokenizer names.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Splits texts into the pieces of a vocabulary.

    Args:
        vocabulary: Token id of each piece; pieces inside of a word start with `##`.
        lower_case: Whether the model knows lower case without accents alone.

    >>> pieces = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "steel": 3, "##yard": 4, "!": 5}
    >>> WordPiece(pieces, lower_case=True).encode("Steelyard! ?")
    [1, 3, 4, 5, 0, 2]
    """

    def __init__(self, vocabulary: Mapping[str, int], *, lower_case: bool) -> None:
        self._vocabulary = vocabulary
        self._lower_case = lower_case
        self._unknown = vocabulary["[UNK]"]
        self._start = vocabulary["[CLS]"]
        self._end = vocabulary["[SEP]"]

    def encode(self, text: str) -> list[int]:
        """Which tokens are the text, with the model's marks of start and end?"""
        token_ids = [self._start]
        for word in _words(self._normal(text)):
            token_ids.extend(self._pieces(word))
        token_ids.append(self._end)
        return token_ids

    def _normal(self, text: str) -> str:
        if text.isascii():
            spaced = "".join([_cleaned(char) for char in text])
            return spaced.lower() if self._lower_case else spaced
        spaced = "".join([f" {char} " if _is_ideograph(char) else _cleaned(char) for char in text])
        if not self._lower_case:
            return spaced
        apart = unicodedata.normalize("NFD", spaced)
        return "".join([char for char in apart if unicodedata.category(char) != "Mn"]).lower()

    def _pieces(self, word: str) -> list[int]:
        """The longest piece first, then the longest of the rest; all or nothing."""
        if len(word) > _MAX_WORD_CHARS:
            return [self._unknown]
        found: list[int] = []
        start = 0
        while start < len(word):
            mark = _CONTINUED if start else ""
            for end in range(len(word), start, -1):
                token_id = self._vocabulary.get(mark + word[start:end])
                if token_id is not None:
                    found.append(token_id)
                    start = end
                    break
            else:
                return [self._unknown]
        return found


def _words(text: str) -> Iterator[str]:
    """Runs of letters and digits; every punctuation mark is a word of its own."""
    word: list[str] = []
    for char in text:
        if char.isalnum():
            word.append(char)
        elif char.isspace() or _is_punctuation(char):
            if word:
                yield "".join(word)
                word.clear()
            if not char.isspace():
                yield char
        else:
            word.append(char)
    if word:
        yield "".join(word)


def _cleaned(char: str) -> str:
    """The character, a space for white space, nothing for control characters."""
    if char.isspace():
        return " "
    if char == "\ufffd" or unicodedata.category(char).startswith("C"):
        return ""
    return char


def _is_ideograph(char: str) -> bool:
    code = ord(char)
    return any(first <= code <= last for first, last in _IDEOGRAPHS)


def _is_punctuation(char: str) -> bool:
    # ASCII symbols such as $ and ^ count, though Unicode does not call them punctuation.
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")
