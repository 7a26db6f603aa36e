"""Who may look, and what a browser may do with the pages.

A browser cannot send a bearer key by itself: who has one gives it once, and gets a cookie in its
place. The key itself stays in this process, so that one that is revoked lets nobody in any more.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from steelyard.dashboard.sources import Asked, Refusal

COOKIE = "steelyard_session"
SESSION_S = 12 * 3600
_MOST_SESSIONS = 1000
_UNAUTHORIZED = 401

# No inline script or style, nothing from elsewhere, no frame around it. Pico's CSS holds its icons
# as data: images.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class PageRequest:
    """A request as the check of keys sees it.

    Args:
        path: Path of the URL.
        headers: Its headers, names in lower case.
        key: Key to be shown for it; empty for none but its own.
    """

    def __init__(self, path: str, headers: Mapping[str, str], key: str = "") -> None:
        self.path = path
        self._headers = headers
        self._key = key

    def header(self, name: bytes) -> str | None:
        """The value of a request header."""
        if self._key and name == b"authorization":
            return f"Bearer {self._key}"
        return self._headers.get(name.decode())


class _Session(msgspec.Struct, frozen=True):
    key: str
    until_s: float

    def __repr__(self) -> str:
        return "_Session(hidden)"


class Sessions:
    """Who has given a key, and until when.

    Args:
        refusal: Says whether a key still lets in.
    """

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._sessions: dict[bytes, _Session] = {}

    def open(self, path: str, headers: Mapping[str, str], key: str) -> str | None:
        """Take a key.

        Returns:
            The cookie's value; None when the key lets nobody in.
        """
        if not key.isascii() or self._refusal(PageRequest(path, headers, key)) is not None:
            return None
        token = secrets.token_urlsafe(32)
        while len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[_digest(token)] = _Session(key, time.monotonic() + SESSION_S)
        return token

    def close(self, token: str) -> None:
        """Forget a session."""
        self._sessions.pop(_digest(token), None)

    def refused(self, asked: Asked, headers: Mapping[str, str], token: str) -> str | None:
        """Why may this request not be served?

        Args:
            asked: The request as it came.
            headers: Its headers.
            token: Value of its cookie; empty without one.

        Returns:
            None when it may; `login` where a key would help; otherwise a sentence for people.
        """
        found = self._refusal(asked)
        if found is None:
            return None
        if found[0] != _UNAUTHORIZED:
            return found[1]
        session = self._sessions.get(_digest(token)) if token else None
        if session is None or session.until_s < time.monotonic():
            return "login"
        again = self._refusal(PageRequest(asked.path, headers, session.key))
        return None if again is None else "login"


def comes_from_here(headers: Mapping[str, str]) -> bool:
    """Was a request that changes something sent by a page of ours?

    Browsers say where a request comes from in a header that no page can forge; what says nothing
    is no browser, and has /api.
    Source: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), as Go's CrossOriginProtection.

    >>> comes_from_here({"sec-fetch-site": "same-origin"}), comes_from_here({})
    (True, False)
    >>> comes_from_here({"origin": "http://evil.example", "host": "127.0.0.1:8080"})
    False
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin, host = headers.get("origin", ""), headers.get("host", "")
    return bool(host) and urlsplit(origin).netloc == host


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
