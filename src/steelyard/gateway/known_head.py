"""A head that comes again on its connection, and need not be parsed again.

A client sends the same bytes before every request, but for the digits of `content-length`. What
llhttp has read of them once, it would read of them again; so a head that differs in nothing but
those digits is known by two comparisons. Everything else (a body that comes in pieces, another
header, chunks) goes to the parser as ever.
"""

from collections.abc import Sequence

from steelyard.gateway.exchange import RequestHeaders

_LENGTH = b"content-length"
_LINE = b"\r\ncontent-length: "
_MAX_HEAD_BYTES = 4096
_MAX_DIGITS = 9
# What says more than a length about where a body ends, or whether it comes at all.
_NEVER = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"trailer"))


class KnownHead:
    """The head of a POST with a body.

    Attributes:
        line: Method, path and version, as parsed.
        headers: The headers as parsed, without the length of the body.
    """

    __slots__ = ("_after", "_before", "headers", "line")

    def __init__(
        self, line: tuple[str, str, str], headers: RequestHeaders, before: bytes, after: bytes
    ) -> None:
        self.line = line
        self.headers = headers
        self._before = before
        self._after = after

    def body_in(self, data: bytes) -> bytes | None:
        """The body of a request that is all there is in some bytes, and has this head.

        Args:
            data: Bytes from the beginning of a request.

        Returns:
            The body; None for bytes that are for the parser.
        """
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r\n", start, start + _MAX_DIGITS + 2)
        digits = data[start:end] if end > start else b""
        if not digits.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        return body if len(body) == int(digits) else None


def known_head(
    data: bytes, line: tuple[str, str, str], pairs: Sequence[tuple[bytes, bytes]]
) -> KnownHead | None:
    """What is to be known of a head that was parsed?

    Args:
        data: Bytes that begin with it.
        line: Method, path and version.
        pairs: Its headers, names in lower case.

    Returns:
        The head; None for one that is better parsed every time.
    """
    end = data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES)
    lengths = [value for name, value in pairs if name == _LENGTH]
    names = {name for name, _ in pairs}
    if end < 0 or line[0] != "POST" or line[2] != "1.1" or len(lengths) != 1 or names & _NEVER:
        return None
    head = data[: end + 4]
    at = head.lower().find(_LINE)
    # As many lines as headers: the parser saw the same ones.
    if not head.startswith(b"POST ") or at < 0 or head.count(b"\r\n") != len(pairs) + 2:
        return None
    start = at + len(_LINE)
    after = head[head.index(b"\r\n", start) :]
    digits = head[start : len(head) - len(after)]
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or digits != lengths[0]:
        return None
    headers = RequestHeaders([pair for pair in pairs if pair[0] != _LENGTH])
    return KnownHead(line, headers, head[:start], after)
