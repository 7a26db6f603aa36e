"""Who may call: bearer keys, or this machine alone where no key is set."""

import hashlib
import hmac
from urllib.parse import urlsplit

from steelyard.errors import ConfigError
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import HttpRequest
from steelyard.gateway.settings import GatewaySettings, is_loopback

_HASH_PREFIX = "sha256:"
_HASH_DIGITS = 64


class Authenticator:
    """Checks the key of each request; without keys, that it comes from no foreign web page.

    Args:
        settings: The gateway's settings; of the keys only hashes are kept.

    Raises:
        ConfigError: A key given as a hash is malformed.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._digests = tuple(_digest(key) for key in settings.api_keys)
        self._host = settings.host

    def check(self, exchange: HttpRequest) -> None:
        """May this request be served?

        Args:
            exchange: The request.

        Raises:
            RequestError: 401 without a valid key; 403 from a foreign web page.
        """
        if not self._digests:
            self._check_is_local(exchange)
            return
        scheme, _, presented = (exchange.header(b"authorization") or "").partition(" ")
        digest = hashlib.sha256(presented.strip().encode()).digest()
        # Every key is compared, so that the time tells nothing about which one was close.
        known = [hmac.compare_digest(digest, one) for one in self._digests]
        if scheme.lower() != "bearer" or not any(known):
            raise RequestError(
                "the API key is missing or unknown; send `Authorization: Bearer KEY`",
                status=401,
                code="invalid_api_key",
                headers=[(b"www-authenticate", b"Bearer")],
            )

    def _check_is_local(self, exchange: HttpRequest) -> None:
        # A web page in this machine's browser reaches loopback, too: directly (then Origin is
        # foreign) or by DNS rebinding (then Host is).
        for name, value in (
            ("Host", "//" + (exchange.header(b"host") or "localhost")),
            ("Origin", exchange.header(b"origin") or "//localhost"),
        ):
            try:
                host = urlsplit(value).hostname or ""
            except ValueError:
                host = ""
            if not is_loopback(host) and host != self._host:
                raise RequestError(
                    f"{name} {value.removeprefix('//')!r} is not this machine, and no API key is "
                    "set; set gateway.api_keys to serve others",
                    status=403,
                    code="foreign_origin",
                )


def _digest(key: str) -> bytes:
    if not key.startswith(_HASH_PREFIX):
        return hashlib.sha256(key.encode()).digest()
    digits = key.removeprefix(_HASH_PREFIX)
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digits) != _HASH_DIGITS or len(digest) != _HASH_DIGITS // 2:
        msg = "gateway.api_keys holds a `sha256:` key that is not 64 hex digits; hash it again"
        raise ConfigError(msg)
    return digest
