"""The keys of a store, kept in memory: whose key is this?

A key is 256 random bits behind a public id. The id finds it, the SHA-256 of the whole key is
compared in constant time. A slow hash, as for passwords, would protect against guessing, which
nobody does with 256 bits, and would cost every request milliseconds.

What another process changes is seen within `SEEN_WITHIN_S`. While the store does not answer, keys
are trusted for `TRUSTED_S` and refused then: so a revoked key has an end, whatever happens.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable

from steelyard.domain.key import ApiKey, key_id_of
from steelyard.errors import StoreError
from steelyard.gateway.errors_http import RequestError
from steelyard.store.keys import KeyStore

_LOOK_S = 0.5
# The pause between two looks, and time for the look itself on a busy machine.
SEEN_WITHIN_S = 1.0
TRUSTED_S = 10.0
_NO_DIGEST = bytes(32)


class KeyRing:
    """Finds keys by the token that a caller presents.

    Args:
        store: Where keys are.
        now_s: Seconds since 1970.
    """

    def __init__(self, store: KeyStore, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now_s = now_s
        self._keys: dict[str, ApiKey] = {}
        self._last_change = 0
        self._seen_s = -TRUSTED_S

    def find(self, token: str) -> ApiKey:
        """Whose key is this?

        Args:
            token: What the caller presents.

        Returns:
            The key, which is valid now.

        Raises:
            RequestError: 401 for one that is unknown, revoked or expired; 503 when it cannot be
                known whether it still is valid.
        """
        if time.monotonic() - self._seen_s > TRUSTED_S:
            raise RequestError(
                f"keys could not be read for {TRUSTED_S:g} s; try again when the store is back",
                status=503,
                code="keys_unknown",
                headers=[(b"retry-after", b"1")],
            )
        key = self._keys.get(key_id_of(token) or "")
        digest = hashlib.sha256(token.encode()).digest()
        # The same work for a key that is not there.
        is_it = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        if key is None or not (is_it or self._is_old(key, digest)):
            raise unknown_key()
        if key.revoked_s:
            raise unknown_key(f"the API key {key.key_id} was revoked; ask for another one")
        expires_s = key.terms.expires_s
        if expires_s is not None and self._now_s() >= expires_s:
            raise unknown_key(f"the API key {key.key_id} has expired; ask for another one")
        return key

    def _is_old(self, key: ApiKey, digest: bytes) -> bool:
        """Is it the key before its rotation, and does that one still hold?"""
        known = hmac.compare_digest(digest, key.old_digest or _NO_DIGEST)
        return known and self._now_s() < key.old_until_s

    async def refresh(self) -> None:
        """See what has changed; raises StoreError when the store cannot tell."""
        began_s = time.monotonic()
        for key in await asyncio.wrap_future(self._store.changed_after(self._last_change)):
            self._keys[key.key_id] = key
            self._last_change = max(self._last_change, key.changed)
        self._seen_s = began_s

    async def watch(self) -> None:
        """Look for changes until cancelled, or until the store is broken for good."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.refresh()
            except StoreError:
                # A store that has failed once stays so: no request can be recorded either.
                return


def unknown_key(why: str = "") -> RequestError:
    """The refusal of a key; it never repeats what was presented."""
    return RequestError(
        why or "the API key is missing or unknown; send `Authorization: Bearer KEY`",
        status=401,
        code="invalid_api_key",
        headers=[(b"www-authenticate", b"Bearer")],
    )
