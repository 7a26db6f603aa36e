"""What an upstream's error means for the caller: one of the pool's errors, keys left out."""

import time
from email.utils import parsedate_to_datetime

from steelyard.errors import (
    PoolError,
    PoolOverloadedError,
    PoolProtocolError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from steelyard.pools.backend import JsonObject
from steelyard.pools.wire import parse_object

_MAX_MESSAGE_CHARS = 500
_DEFAULT_RETRY_AFTER_S = 1.0


class ErrorReader:
    """Turns what one server says into errors.

    Args:
        url: The server, for messages.
        secret: What no message may show; empty for nothing.
    """

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret

    def read(self, status: int, body: bytes, retry_after: str | None) -> PoolError:
        """Which error did the server answer?

        Args:
            status: HTTP status.
            body: Its body, an OpenAI error or anything.
            retry_after: Its Retry-After header.

        Returns:
            The error, to be raised.
        """
        said = self.clean(_message(body))
        error = _error_of(status, f"{self._url} answered {status}: {said}", retry_after)
        error.upstream_code, error.upstream_message = _code(body), said
        return error

    def clean(self, text: str) -> str:
        """A text in one line of bounded length, without the secret."""
        # The secret first: cut in the middle, the rest of it would be shown.
        hidden = text.replace(self._secret, "***") if self._secret else text
        return " ".join(hidden.split())[:_MAX_MESSAGE_CHARS]


def status_in(raw: JsonObject) -> int:
    """Which status does the `error` inside a stream tell? 500 where it tells none."""
    error = raw["error"]
    code = error.get("code") if isinstance(error, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _error_of(status: int, text: str, retry_after: str | None) -> PoolError:
    """Which error says what the upstream's status means for the caller?"""
    if status in {429, 503} and (status == 429 or retry_after is not None):
        return PoolOverloadedError(text, retry_after_s=_retry_after_s(retry_after))
    if status in {408, 504}:
        return PoolTimeoutError(text)
    # A refused key is the pool's fault, not the request's: another pool may answer.
    if status >= 500 or status in {401, 402, 403}:
        return PoolUnavailableError(text)
    if status >= 400:
        return PoolRejectedError(text)
    why = "redirects are not followed" if status >= 300 else "200 was expected"
    return PoolProtocolError(f"{text} ({why})")


def _code(body: bytes) -> str:
    try:
        error = parse_object(body).get("error")
    except PoolProtocolError:
        return ""
    code = error.get("code") if isinstance(error, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return code if isinstance(code, str) else ""


def _message(body: bytes) -> str:
    try:
        error = parse_object(body).get("error")
    except PoolProtocolError:
        return body.decode("utf-8", "replace")
    message = error.get("message") if isinstance(error, dict) else error  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return str(message) if message else body.decode("utf-8", "replace")  # pyright: ignore[reportUnknownArgumentType]


def _retry_after_s(value: str | None) -> float:
    if value is None:
        return _DEFAULT_RETRY_AFTER_S
    try:
        return min(3600.0, max(0.0, float(value)))
    except ValueError:
        pass
    try:
        return min(3600.0, max(0.0, parsedate_to_datetime(value).timestamp() - time.time()))
    except (ValueError, OverflowError):
        return _DEFAULT_RETRY_AFTER_S
