"""One small GET, for commands that look at servers. No proxy is used: servers are named as is."""

import urllib.request
from http.client import HTTPException

from steelyard.errors import ConfigError

_MOST_BYTES = 16 * 1024 * 1024


def get(url: str, key: str = "", *, timeout_s: float) -> bytes:
    """What does a server answer?

    Args:
        url: `http://` or `https://` address.
        key: Sent as bearer token; empty for none.
        timeout_s: Longest wait for anything of it.

    Returns:
        The body.

    Raises:
        ConfigError: The address is no HTTP one.
        OSError: No connection, no HTTP, or an answer of a status from 400 on
            (`urllib.error.HTTPError`).
        ValueError: The address cannot be read.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no address; it must start with http:// or https://")
    request = urllib.request.Request(url)  # noqa: S310 - the scheme was checked
    if key:
        # Not handed on to where the server redirects to.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            body: bytes = answer.read(_MOST_BYTES)
    except HTTPException as error:
        # Not HTTP what answers there, or a port that is no number: no OSError to the library.
        raise OSError(f"{type(error).__name__}: {error}") from error
    return body
