"""A gateway over a real store, and keys in it."""

import hashlib
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from tests.gateway.conftest import pool_spec

from steelyard.domain.events import PoolAdded
from steelyard.domain.key import ApiKey, KeyTerms
from steelyard.gateway.metrics import Metrics
from steelyard.gateway.server import GatewayServer, serve
from steelyard.gateway.settings import GatewaySettings
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.backend import LlmBackend
from steelyard.runtime.clock import WallClock
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store


def minted(key_id: str, terms: KeyTerms) -> tuple[str, ApiKey]:
    """A key's token, and what the store keeps of it."""
    token = f"sk-sy-{key_id}-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).digest()
    return token, ApiKey(key_id=key_id, digest=digest, terms=terms, created_s=1.0)


class KeyRig:
    """A running gateway and its store."""

    def __init__(self, server: GatewayServer, dispatcher: Dispatcher, store: EventStore) -> None:
        self.server = server
        self.dispatcher = dispatcher
        self.store = store

    def spent_usd(self, key_id: str) -> float:
        """What the store has booked for a key, in total."""
        spends = self.store.keys.spends().result()
        return sum(one.spent_usd for one in spends if (one.key_id, one.period) == (key_id, "total"))


@asynccontextmanager
async def keyed_gateway(
    where: Path | str,
    pools: dict[str, LlmBackend],
    *keys: ApiKey,
    settings: GatewaySettings | None = None,
    cap: int = 64,
) -> AsyncGenerator[KeyRig, None]:
    with open_store(where) as store:
        for key in keys:
            store.keys.put(key).result()
        recorder = Recorder(WallClock(), store)
        metrics = Metrics()
        recorder.subscribe(metrics.apply)
        for name, pool in pools.items():
            spec = pool_spec(name, pool.models()[0], cap)
            recorder.record(PoolAdded(t_s=recorder.now_s(), spec=spec))
        dispatcher = Dispatcher(recorder, CheapestFeasible(), pools, {})
        chosen = msgspec.structs.replace(settings or GatewaySettings(require_key=True), port=0)
        async with serve(chosen, dispatcher, metrics, store=store) as server:
            yield KeyRig(server, dispatcher, store)
