"""Which slot of llama.cpp computes a prompt, and what is copied into it before?

llama.cpp keeps the computed keys and values of each slot apart: eight slots with the same prefix
compute it eight times (ggml-org/llama.cpp#27616). So snapshots of slots are kept, and copied into
any other slot that can use them. This is the bookkeeping; it computes and copies nothing itself.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

_COMPARED_AT_ONCE = 256


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prompt is computed.

    Attributes:
        slot: Number of the slot.
        shared_tokens: Leading tokens of the prompt that need no computing.
        snapshot: Name of the snapshot to copy into the slot first; None to use what is there.
        displaced: What the slot holds and no snapshot does: to be saved first. Empty for nothing.
    """

    slot: int
    shared_tokens: int
    snapshot: int | None
    displaced: tuple[int, ...]


class SlotTable:
    """What the slots and snapshots hold.

    Args:
        slots: Number of slots.
        snapshot_tokens: Tokens of all snapshots together; 0 for no snapshots.
        worth_tokens: Computing fewer tokens than this is cheaper than a copy.

    >>> table = SlotTable(slots=2, snapshot_tokens=100, worth_tokens=2)
    >>> first = table.take([1, 2, 3, 4])
    >>> table.saved(7, [1, 2, 3, 4])
    []
    >>> second = table.take([1, 2, 3, 9])
    >>> (first.slot, second.slot, second.snapshot, second.shared_tokens)
    (0, 1, 7, 3)
    """

    def __init__(self, slots: int, snapshot_tokens: int, worth_tokens: int) -> None:
        self._held: list[Sequence[int]] = [() for _ in range(slots)]
        # Free slots, least recently used first.
        self._free = list(range(slots))
        self._snapshot_tokens = snapshot_tokens
        self._worth_tokens = worth_tokens
        self._snapshots: OrderedDict[int, Sequence[int]] = OrderedDict()

    @property
    def free(self) -> int:
        """How many slots have nothing to do?"""
        return len(self._free)

    def take(self, token_ids: Sequence[int]) -> Place:
        """Where is this prompt computed? The slot is busy until `release`.

        Raises:
            IndexError: No slot is free.
        """
        slot = max(self._free, key=lambda s: shared_tokens(self._held[s], token_ids))
        shared = shared_tokens(self._held[slot], token_ids)
        name, copied = self._best_snapshot(token_ids)
        if copied >= shared + self._worth_tokens:
            slot, shared = self._free[0], copied
        else:
            name = None
        if name is not None:
            self._snapshots.move_to_end(name)
        displaced = self._displaced(slot, 0 if name is not None else shared)
        self._free.remove(slot)
        self._held[slot] = ()
        return Place(slot=slot, shared_tokens=shared, snapshot=name, displaced=displaced)

    def release(self, slot: int, token_ids: Sequence[int]) -> None:
        """The slot has nothing to do any more, and holds these tokens."""
        self._held[slot] = token_ids
        self._free.append(slot)

    def saved(self, name: int, token_ids: Sequence[int]) -> list[int]:
        """There is a new snapshot. Returns the snapshots to drop for it."""
        if len(token_ids) > self._snapshot_tokens:
            return [name]
        dropped = [
            other
            for other, held in self._snapshots.items()
            if shared_tokens(held, token_ids) == len(held)
        ]
        for other in dropped:
            del self._snapshots[other]
        self._snapshots[name] = token_ids
        kept = sum(len(held) for held in self._snapshots.values())
        while kept > self._snapshot_tokens:
            other, held = self._snapshots.popitem(last=False)
            dropped.append(other)
            kept -= len(held)
        return dropped

    def lost(self, name: int) -> None:
        """A snapshot cannot be read."""
        self._snapshots.pop(name, None)

    def _best_snapshot(self, token_ids: Sequence[int]) -> tuple[int | None, int]:
        best: tuple[int | None, int] = (None, 0)
        for name, held in self._snapshots.items():
            shared = shared_tokens(held, token_ids)
            if shared > best[1]:
                best = (name, shared)
        return best

    def _displaced(self, slot: int, kept: int) -> tuple[int, ...]:
        held = self._held[slot]
        known = max(kept, self._best_snapshot(held)[1])
        worth = self._snapshot_tokens > 0 and len(held) - known >= self._worth_tokens
        return tuple(held) if worth else ()


def shared_tokens(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens are the same?

    >>> shared_tokens([1, 2, 3], (1, 2, 4, 5))
    2
    """
    a, b = tuple(a), tuple(b)
    shortest = min(len(a), len(b))
    for start in range(0, shortest, _COMPARED_AT_ONCE):
        end = min(start + _COMPARED_AT_ONCE, shortest)
        if a[start:end] != b[start:end]:
            return next(i for i in range(start, end) if a[i] != b[i])
    return shortest
