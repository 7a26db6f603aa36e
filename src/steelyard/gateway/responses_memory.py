"""Earlier responses, for `previous_response_id`: kept in this process, bounded, and for an hour."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from steelyard.gateway.exchange import Exchange

_Json = dict[str, Any]

KEPT_S = 3600.0
KEPT_BYTES = 16 * 1024 * 1024


class _Kept(msgspec.Struct):
    owner: bytes
    previous_id: str | None
    items: bytes
    response: bytes
    used_s: float

    @property
    def size_bytes(self) -> int:
        """What it takes, its own entry counted roughly."""
        return len(self.items) + len(self.response) + 512


def owner_of(exchange: Exchange) -> bytes:
    """Whose response is it? A hash of the key that came with the request.

    Args:
        exchange: The request; a minted key is its id, which stays when it is rotated.
    """
    use = exchange.key
    key = (exchange.header(b"authorization") or "") if use is None else f"id {use.key.key_id}"
    return hashlib.blake2b(key.encode("latin-1"), digest_size=16).digest()


class ResponsesMemory:
    """Keeps responses; the least recently used go first.

    Every response holds the items that were new with it, and names the one before. A response
    is never newer than those before it, so the oldest one is nobody's predecessor.

    Args:
        now_s: The clock.
        kept_s: Seconds from its last use for which a response is kept.
        kept_bytes: What all of them may take.
    """

    def __init__(
        self,
        now_s: Callable[[], float],
        kept_s: float = KEPT_S,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._now_s = now_s
        self._kept_s = kept_s
        self._room_bytes = kept_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(
        self, owner: bytes, response: _Json, new_items: list[_Json], previous_id: str | None
    ) -> None:
        """Keep a response.

        Args:
            owner: Who may use it.
            response: The object that was sent.
            new_items: Input items that came with its request.
            previous_id: The response before; None for none.
        """
        self._forget_old()
        kept = _Kept(
            owner=owner,
            previous_id=previous_id,
            items=msgspec.json.encode(new_items),
            response=msgspec.json.encode(response),
            used_s=self._now_s(),
        )
        response_id = str(response["id"])
        before = self._kept.pop(response_id, None)
        self._room_bytes += 0 if before is None else before.size_bytes
        self._kept[response_id] = kept
        self._room_bytes -= kept.size_bytes
        self._touch(self._chain(owner, response_id))
        while self._room_bytes < 0 and self._kept:
            self._drop(next(iter(self._kept)))

    def items(self, owner: bytes, response_id: str) -> list[_Json] | None:
        """Which items did a conversation have up to and with a response?

        Args:
            owner: Who asks.
            response_id: The response.

        Returns:
            Inputs and outputs in order; None where it, or one before it, is not kept any more.
        """
        self._forget_old()
        chain = self._chain(owner, response_id)
        if chain is None:
            return None
        self._touch(chain)
        items: list[_Json] = []
        for name in reversed(chain):
            kept = self._kept[name]
            items += msgspec.json.decode(kept.items, type=list[_Json])
            # An endpoint's answer is kept as it came.
            output: Any = msgspec.json.decode(kept.response, type=_Json).get("output")
            items += output if isinstance(output, list) else []
        return items

    def response(self, owner: bytes, response_id: str) -> bytes | None:
        """The object that was sent, as JSON; None where it is not kept, or another's."""
        self._forget_old()
        kept = self._kept.get(response_id)
        return None if kept is None or kept.owner != owner else kept.response

    def forget(self, owner: bytes, response_id: str) -> bool:
        """Forget a response; False where there is none."""
        if self.response(owner, response_id) is None:
            return False
        self._drop(response_id)
        return True

    def _chain(self, owner: bytes, response_id: str) -> list[str] | None:
        """A response and those before it, newest first."""
        # In order; a dictionary, since each step looks for a circle.
        chain: dict[str, None] = {}
        name: str | None = response_id
        while name is not None:
            kept = self._kept.get(name)
            if kept is None or kept.owner != owner or name in chain:
                return None
            chain[name] = None
            name = kept.previous_id
        return list(chain)

    def _touch(self, chain: list[str] | None) -> None:
        now_s = self._now_s()
        for name in chain or ():
            self._kept[name].used_s = now_s
            self._kept.move_to_end(name)

    def _forget_old(self) -> None:
        since_s = self._now_s() - self._kept_s
        while self._kept:
            name = next(iter(self._kept))
            if self._kept[name].used_s >= since_s:
                return
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._room_bytes += self._kept.pop(name).size_bytes
