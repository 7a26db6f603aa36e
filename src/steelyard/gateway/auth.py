"""Who may call: keys of the file, minted ones, or this machine alone where none is needed."""

import hashlib
import hmac
from urllib.parse import urlsplit

from steelyard.domain.key import KEY_PREFIX, ApiKey
from steelyard.errors import ConfigError
from steelyard.gateway.errors_http import RequestError
from steelyard.gateway.exchange import HttpRequest
from steelyard.gateway.keys_ring import KeyRing, unknown_key
from steelyard.gateway.settings import GatewaySettings, is_loopback

_HASH_PREFIX = "sha256:"
_HASH_DIGITS = 64


class Authenticator:
    """Checks the key of each request; without keys, that it comes from no foreign web page.

    Args:
        settings: The gateway's settings; of the keys only hashes are kept.
        ring: The minted keys; None where there is no store.

    Raises:
        ConfigError: A key given as a hash is malformed, or none can ever be right.
    """

    def __init__(self, settings: GatewaySettings, ring: KeyRing | None = None) -> None:
        self._digests = tuple(_digest(key) for key in settings.api_keys)
        self._host = settings.host
        self._require_key = settings.require_key
        self._ring = ring
        if settings.require_key and ring is None and not self._digests:
            raise ConfigError("gateway.require_key is set, and there is no store to hold keys")

    def check(self, exchange: HttpRequest) -> ApiKey | None:
        """May this request be served?

        Args:
            exchange: The request.

        Returns:
            The minted key; None for one of the file, or where none is needed.

        Raises:
            RequestError: 401 without a valid key; 403 from a foreign web page.
        """
        scheme, _, presented = (exchange.header(b"authorization") or "").partition(" ")
        presented = presented.strip()
        if presented.startswith(KEY_PREFIX) and self._ring is not None:
            if scheme != "Bearer" and scheme.lower() != "bearer":
                raise unknown_key()
            return self._ring.find(presented)
        if not self._digests and not self._require_key:
            self._check_is_local(exchange)
            return None
        digest = hashlib.sha256(presented.encode()).digest()
        # Every key is compared, so that the time tells nothing about which one was close.
        known = [hmac.compare_digest(digest, one) for one in self._digests]
        if scheme.lower() != "bearer" or not any(known):
            raise unknown_key()
        return None

    def check_control(self, exchange: HttpRequest) -> None:
        """May this request to the control plane be served?

        Args:
            exchange: The request.

        Raises:
            RequestError: As `check`; and 403 for a minted key that is for /v1 alone.
        """
        key = self.check(exchange)
        if key is not None and not key.terms.control:
            raise RequestError(
                f"key {key.key_id} is for /v1 alone; `steelyard keys create --control` makes one "
                "for the rest",
                status=403,
                code="not_allowed",
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
