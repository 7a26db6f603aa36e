"""From tokens to text: whole characters only, and never a stop string."""

import codecs


class TextStream:
    """Turns a sequence's token bytes into text that may be sent.

    Text that could be the start of a stop string is held back until it is known not to be.

    Args:
        stop: Texts that end the answer.

    >>> stream = TextStream(stop=("END",))
    >>> stream.feed(b"one E"), stream.feed(b"NGINE"), stream.feed(b" EN"), stream.feed(b"D two")
    ('one ', 'ENGIN', 'E ', '')
    >>> stream.stopped
    True
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, token: bytes) -> str:
        """Which text can be sent now?"""
        if self.stopped:
            return ""
        return self._advance(self._decoder.decode(token))

    def finish(self) -> str:
        """Which text was still held back when the sequence ended?"""
        if self.stopped:
            return ""
        text = self._advance(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _advance(self, text: str) -> str:
        text = self._held + text
        found = [position for position in map(text.find, self._stop) if position >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = _held_chars(text, self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _held_chars(text: str, stop: tuple[str, ...]) -> int:
    longest = 0
    for candidate in stop:
        for length in range(min(len(candidate) - 1, len(text)), longest, -1):
            if text.endswith(candidate[:length]):
                longest = length
                break
    return longest
