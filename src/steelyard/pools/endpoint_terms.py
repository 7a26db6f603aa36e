"""What an endpoint pool is told of its servers: where they are, how long to wait, what they do."""

from urllib.parse import urlsplit

import msgspec

from steelyard.errors import ConfigError
from steelyard.pools.dialects import Engine


class EndpointLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, and how much at once.

    Attributes:
        connect_s: For a connection.
        first_token_s: From sending the request to the first event.
        gap_s: From one event to the next.
        answer_s: For an answer that is not streamed: it comes at once, and late.
        probe_s: Between looks at a server that is down.
        connections: At once to one server; a request beyond is refused as overload.
    """

    connect_s: float = 5.0
    first_token_s: float = 120.0
    gap_s: float = 60.0
    answer_s: float = 600.0
    probe_s: float = 5.0
    connections: int = 4096


class EndpointTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of servers they are.

    Attributes:
        engine: Whose words they read; empty hands every request on in the caller's.
        apis: What they offer beside chat, completions and embeddings: `responses`, `rerank`.
    """

    engine: Engine = ""
    apis: tuple[str, ...] = ()


def checked_url(url: str) -> str:
    """A base URL without its last slash.

    Args:
        url: As it was given.

    Returns:
        Up to and with `/v1`, as messages show it and requests are sent to it.

    Raises:
        ConfigError: It is no http(s) URL, or has a user or a query.

    >>> checked_url("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000/v1'
    """
    if not _is_url(url):
        shown = url.rpartition("@")[2]
        raise ConfigError(
            f"The base URL {shown!r} must be http(s)://HOST[:PORT]/v1, without user and query."
        )
    return url.rstrip("/")


def _is_url(url: str) -> bool:
    # What urlsplit lets through and a request line does not hold comes first.
    if not url.isprintable() or any(one in url for one in "@?# "):
        return False
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
        if not parts.netloc.isascii():
            # As `HttpHost` does; a name that has no such form raises a ValueError, too.
            parts.netloc.encode("idna")
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and has_host and parts.path.isascii()
