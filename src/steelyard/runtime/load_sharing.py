"""Processes on one store tell each other how busy they keep the endpoints that all of them use.

Ten times a second (twenty while steps wait, four while all idle), and soon after a step had to
wait, a process hears what the others do, takes its share of every replica's cap
(`steelyard.fleet.sharing`) and tells both, and which prompts replicas hold in their caches now.
What it knows of others is so old at most, while the store answers; the load of one that died is
forgotten after a second by the database's clock. Embedded engines and tools belong to their
process: they are not shared.
"""

import asyncio
import contextlib
import ipaddress
import socket
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from steelyard.config.pool_settings import EndpointPoolSettings
from steelyard.errors import StoreError
from steelyard.fleet.prefix import RecentPrefix
from steelyard.fleet.sharing import ReplicaLoad, own_share
from steelyard.runtime.background import in_background
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.starting import RunningPool
from steelyard.store.loads import LoadStore

_BUSY_S = 0.1
_WAITING_S = 0.05
_QUIET_S = 0.25
# Steps that have to wait ask for a larger share at once, but not more often than this.
_SOONEST_S = 0.02
_LEASE_S = 1.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAME_HOST = frozenset({"localhost", "127.0.0.1", "::1"})

# Where a replica is, as all processes call it, to what this one calls it.
Places = dict[str, tuple[str, int]]
_Loads = dict[str, ReplicaLoad]
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[_Loads] = msgspec.json.Decoder(_Loads)


class Heard(NamedTuple):
    """What an exchange brings.

    Attributes:
        elsewhere: What all others together do, by replica.
        shares: How many steps this process may run, by replica; none where it is alone.
        prefixes: Prompts that others had computed and this process has not heard of, by replica.
        seen: Number of the last prompt that each other process told.
        pause_s: After how long to look again: sooner where steps wait.
    """

    elsewhere: _Loads
    shares: dict[str, int]
    prefixes: list[tuple[str, RecentPrefix]]
    seen: dict[str, int]
    pause_s: float


def endpoint_places(pools: Mapping[str, RunningPool]) -> Places:
    """Which replicas may other processes use, too, and what do all call them?

    Args:
        pools: The pools of this process.

    Returns:
        Address to pool and replica. An address of this machine alone gets its host's name; one that
        is there twice gets a number, since its caps are counted apart here, too.
    """
    places: Places = {}
    seen: Counter[str] = Counter()
    for name, pool in sorted(pools.items()):
        if isinstance(pool.settings, EndpointPoolSettings):
            for replica, url in enumerate(pool.settings.base_urls):
                address = known_address(url)
                twins = seen[address]
                places[f"{address}#{twins}" if twins else address] = (name, replica)
                seen[address] += 1
    return places


def known_address(url: str) -> str:
    """An endpoint's address as it is known to other machines, too.

    Scheme and host have no case, a port that the scheme implies need not be told, and `localhost`,
    127.0.0.1 and ::1 are one host (other loopback addresses are others).

    Args:
        url: Base URL of the endpoint, without user and query.

    >>> known_address("HTTP://GPU-5.example:80/v1/")
    'http://gpu-5.example/v1'
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    name = "localhost" if host in _SAME_HOST else f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _DEFAULT_PORTS.get(scheme)} else f":{parts.port}"
    address = f"{scheme}://{name}{port}{parts.path.rstrip('/')}"
    return f"{socket.gethostname()} {address}" if _is_loopback(host) else address


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def heard(
    me: str,
    mine: _Loads,
    caps: Mapping[str, int],
    seen: Mapping[str, int],
    told: list[tuple[str, bytes]],
) -> tuple[bytes, Heard]:
    """What does this process make of what the others told?

    Args:
        me: Its name.
        mine: What it does, by replica.
        caps: Steps that run at once, by replica.
        seen: Number of the last prompt that each other process told before.
        told: Name and load of every other process.

    Returns:
        What it tells them, and what it keeps to.
    """
    others = {name: _decoder.decode(body) for name, body in told}
    elsewhere: _Loads = {}
    claims: dict[str, int] = {}
    for address, load in mine.items():
        there = {name: loads[address] for name, loads in others.items() if address in loads}
        claims[address] = own_share(caps[address], me, load, there)
        for other in there.values():
            elsewhere[address] = elsewhere.get(address, ReplicaLoad()).plus(other)
    tells = {
        address: msgspec.structs.replace(load, share=claims[address])
        for address, load in mine.items()
    }
    shares = {address: claims[address] for address in elsewhere}
    news = [
        (name, address, one)
        for name, loads in others.items()
        for address, load in loads.items()
        for one in load.prefixes
        if address in mine and one.number > seen.get(name, 0)
    ]
    last = {name: seen.get(name, 0) for name in others}
    for name, _, one in news:
        last[name] = max(last[name], one.number)
    prefixes = [(address, one) for _, address, one in news]
    return _encoder.encode(tells), Heard(
        elsewhere, shares, prefixes, last, _pause_s(mine, elsewhere)
    )


def _pause_s(mine: _Loads, elsewhere: _Loads) -> float:
    loads = (*mine.values(), *elsewhere.values())
    if not elsewhere or not any(load.demand for load in loads):
        return _QUIET_S
    return _WAITING_S if any(load.waiting for load in loads) else _BUSY_S


class LoadSharing:
    """Keeps one process in step with the others.

    Args:
        loads: Where all tell.
        dispatcher: Whose steps these are.
        places: Which replicas are shared, now.
    """

    def __init__(
        self, loads: LoadStore, dispatcher: Dispatcher, places: Callable[[], Places]
    ) -> None:
        self._loads = loads
        self._dispatcher = dispatcher
        self._places = places
        self._me = f"process-{uuid.uuid4().hex}"
        self._has_others = False
        self._pause_s = _QUIET_S
        self._seen: dict[str, int] = {}
        self._wake = asyncio.Event()
        dispatcher.admission.on_wait = self._step_waits

    async def run(self) -> None:
        """Exchange until cancelled, or until the store is broken for good."""
        with contextlib.suppress(StoreError):
            while True:
                await self.exchange()
                await asyncio.sleep(_SOONEST_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s - _SOONEST_S):
                        await self._wake.wait()
                self._wake.clear()

    async def exchange(self) -> None:
        """Hear the others, take this process's share, and tell.

        Raises:
            StoreError: The store is broken.
        """
        places = self._places()
        if not places:
            return
        state = self._dispatcher.state
        mine = {
            address: msgspec.structs.replace(
                state.own_load(*place), prefixes=state.recent_prefixes(*place)
            )
            for address, place in places.items()
        }
        caps = {address: self._cap(place[0]) for address, place in places.items()}
        decide = partial(heard, self._me, mine, caps, self._seen)
        found = await asyncio.wrap_future(self._loads.exchange(self._me, decide, _LEASE_S))
        if self._has_others or found.shares:
            # A reload may have taken a pool away meanwhile; its place stays, and is not asked for.
            state.share(
                {places[address]: load for address, load in found.elsewhere.items()},
                {places[address]: share for address, share in found.shares.items()},
            )
            self._dispatcher.admission.let_in_all()
        self._has_others = bool(found.shares)
        for address, prefix in found.prefixes:
            state.add_prefix(*places[address], prefix)
        self._seen = found.seen
        self._pause_s = found.pause_s

    async def close(self) -> None:
        """Tell the others that this process is gone."""
        self._dispatcher.admission.on_wait = lambda: None
        with contextlib.suppress(StoreError):
            await asyncio.wrap_future(self._loads.leave(self._me))

    def _step_waits(self) -> None:
        if self._has_others:
            self._wake.set()

    def _cap(self, pool: str) -> int:
        spec = self._dispatcher.state.spec(pool)
        curves = () if spec is None else spec.llm_curves.values()
        return max((curve.concurrency_cap for curve in curves), default=0)


@contextlib.asynccontextmanager
async def shared_loads(
    loads: LoadStore, dispatcher: Dispatcher, places: Callable[[], Places]
) -> AsyncGenerator[LoadSharing, None]:
    """Share loads while the block runs; the first exchange is made when it begins.

    Args:
        loads: Where all tell.
        dispatcher: Whose steps these are.
        places: Which replicas are shared, now.

    Yields:
        What keeps this process in step.

    Raises:
        StoreError: The store is broken.
    """
    sharing = LoadSharing(loads, dispatcher, places)
    await sharing.exchange()
    try:
        async with in_background("sharing of loads", sharing.run()):
            yield sharing
    finally:
        await sharing.close()
