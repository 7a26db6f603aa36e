"""A head of HTTP that comes again, and need not be parsed again.

Whoever speaks on a connection sends the same head before every message, but for the digits of
`content-length`. What llhttp has read of it once, it would read of it again; so a head that differs
in nothing but those digits is known by two comparisons. Everything else (a body that comes in
pieces, another header, chunks) goes to the parser as ever.
"""

from collections.abc import Sequence

_LENGTH = b"content-length"
_LINE = b"\r\ncontent-length: "
_MAX_HEAD_BYTES = 4096
_MAX_DIGITS = 9
# What says more than a length about where a message or its connection ends.
_NEVER = frozenset((b"transfer-encoding", b"connection", b"expect", b"upgrade", b"trailer"))


class KnownHead:
    """The head of a message with a length.

    Args:
        before: Its bytes up to the digits of the length.
        after: Its bytes behind them.
    """

    __slots__ = ("_after", "_before", "_start")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._start = len(before)

    def body_in(self, data: bytes) -> bytes | None:
        """The body of a message that is all there is in some bytes, and has this head.

        Args:
            data: Bytes from the beginning of a message.

        Returns:
            The body; None for bytes that are for the parser.
        """
        if not data.startswith(self._before):
            return None
        start, after = self._start, self._after
        end = data.find(b"\r\n", start, start + _MAX_DIGITS + 2)
        digits = data[start:end] if end > start else b""
        if not digits.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        return body if len(body) == int(digits) else None


def known_head(data: bytes, headers: Sequence[tuple[bytes, bytes]]) -> KnownHead | None:
    r"""What is to be known of a head that was parsed?

    Args:
        data: Bytes that begin with it.
        headers: Its headers, in any spelling.

    Returns:
        The head; None for one that is better parsed every time.

    >>> told = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    >>> known = known_head(told, [(b"Content-Length", b"2")])
    >>> known.body_in(told.replace(b"2\r", b"3\r") + b" ")
    b'{} '
    """
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    names = [name.lower() for name, _ in headers]
    if end < 0 or names.count(_LENGTH) != 1:
        return None
    head = data[: end + 4]
    at = head.lower().find(_LINE)
    # As many lines as headers: the parser saw the same ones.
    if at < 0 or not _keeps_alive(headers) or head.count(b"\r\n") != len(headers) + 2:
        return None
    start = at + len(_LINE)
    after = head[head.index(b"\r\n", start) :]
    digits = head[start : len(head) - len(after)]
    if digits != headers[names.index(_LENGTH)][1] or not 0 < len(digits) <= _MAX_DIGITS:
        return None
    return KnownHead(head[:start], after) if digits.isdigit() else None


def _keeps_alive(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Does nothing but the length tell where the message ends, and does the connection go on?"""
    return all(
        name.lower() not in _NEVER
        or (name.lower(), value.lower()) == (b"connection", b"keep-alive")
        for name, value in headers
    )
