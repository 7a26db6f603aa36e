"""A request whose head came before on its connection; see `steelyard.pools.known_head`."""

from collections.abc import Sequence
from typing import NamedTuple

from steelyard.gateway.exchange import RequestHeaders
from steelyard.pools.known_head import KnownHead, known_head

_LENGTH = b"content-length"


class KnownRequest(NamedTuple):
    """The head of a POST with a body.

    Attributes:
        head: Its bytes.
        line: Method, path and version, as parsed.
        headers: The headers as parsed, without the length of the body.
    """

    head: KnownHead
    line: tuple[str, str, str]
    headers: RequestHeaders


def known_request(
    data: bytes, line: tuple[str, str, str], pairs: Sequence[tuple[bytes, bytes]]
) -> KnownRequest | None:
    """What is to be known of the head of a request that was parsed?

    Args:
        data: Bytes that begin with it.
        line: Method, path and version.
        pairs: Its headers, names in lower case.

    Returns:
        The head; None for one that is better parsed every time.
    """
    if line[0] != "POST" or line[2] != "1.1" or not data.startswith(b"POST "):
        return None
    head = known_head(data, pairs)
    if head is None:
        return None
    headers = RequestHeaders([pair for pair in pairs if pair[0] != _LENGTH])
    return KnownRequest(head, line, headers)
