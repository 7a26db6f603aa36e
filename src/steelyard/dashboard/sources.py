"""What the dashboard needs of the server and the store that it stands beside."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from steelyard.runtime.dispatcher import Dispatcher
from steelyard.store.event_store import EventStore
from steelyard.store.reader import StoreAddress

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Asked(Protocol):
    """What a check of keys must know of a request."""

    @property
    def path(self) -> str:
        """Path of the URL."""
        ...

    def header(self, name: bytes) -> str | None:
        """The value of a request header, by its name in lower case."""
        ...


# HTTP status and message with which a request is refused; None when it may pass.
Refusal = Callable[[Asked], tuple[int, str] | None]
# Name of a pool to what its attempts came to since the start, see `Metrics.pool_totals`.
Totals = Callable[[str], Mapping[str, float]]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the pages' figures come from; nothing is booked a second time.

    Attributes:
        dispatcher: The live fleet.
        store: Takes what people ask for: cancel, retry.
        address: The same store, for reading beside it.
        plan: The plan in force, as `steelyard plan --out` writes it; None without one.
        plan_settings: What new plans keep to, as `steelyard plan --config` takes it; None for the
            defaults.
    """

    dispatcher: Dispatcher
    store: EventStore
    address: StoreAddress
    plan: Path | None = None
    plan_settings: Path | None = None
