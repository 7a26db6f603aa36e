"""Ray itself: the one module that imports it. Written for Ray 2.50 and later.

Of Ray's private parts it uses the list of draining nodes alone, which has no public name.
"""

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import ray
from ray._private.state import state
from ray.exceptions import RayError

from steelyard.errors import PoolUnavailableError
from steelyard.pools.ray.actors import ActorLostError
from steelyard.pools.ray.frames import Open
from steelyard.pools.ray.host import ReplicaHost, Told
from steelyard.pools.ray.labels import NodeFacts

# Ray's functions have no types that say enough.
_RAY: Any = ray
_OWN_LABELS = "ray.io/"
# Requests at once in one actor; the pool's own limits are far below.
_MAX_CONCURRENCY = 10_000
_MS_PER_S = 1000.0
_KNOCK_S = 5.0


class RayReplica(ReplicaHost):
    """A replica as an actor."""

    async def where(self) -> str:
        """On which node is it?"""
        return str(ray.get_runtime_context().get_node_id())


class RayActor:
    """A handle of an actor; see `steelyard.pools.ray.actors.Actor`."""

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - Ray makes its methods at run time
        self._handle = handle

    async def node_id(self) -> str:
        """On which node is it? Waits until it is on one."""
        return str(await _result(self._handle.where.remote()))

    async def begin(self, ordinal: int) -> tuple[str, int, str]:
        """Start the backend."""
        begun: tuple[str, int, str] = await _result(self._handle.begin.remote(ordinal))
        return begun

    async def ask(self, body: bytes) -> None:
        """Begin to answer a request."""
        await _result(self._handle.ask.remote(body))

    async def drop(self, request_id: int) -> None:
        """Stop work on a request."""
        await _result(self._handle.drop.remote(request_id))

    async def pull(self) -> list[Told]:
        """What is new since the last call?"""
        told: list[Told] = await _result(self._handle.pull.remote())
        return told

    async def end(self) -> None:
        """Stop the backend."""
        await _result(self._handle.end.remote())

    def kill(self) -> None:
        """End its process."""
        _RAY.kill(self._handle, no_restart=True)


async def _result(reference: Any) -> Any:  # noqa: ANN401 - what the actor returns
    try:
        return await reference
    except RayError as error:
        first = str(error).strip().splitlines()[:1]
        told = first[0] if first else ""
        raise ActorLostError(f"{type(error).__name__}: {told}") from error


def _knock(address: str) -> None:
    """Ray tries for minutes to reach a port that is closed, and ends the process then.

    Raises:
        OSError: Nobody takes connections there.
        ValueError: Its port is none.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _KNOCK_S).close()


class RayCluster:
    """A cluster that this process is connected to.

    Args:
        address: As `ray.init` takes it.

    Raises:
        PoolUnavailableError: No cluster answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            _knock(address)
            _RAY.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            first = str(error).strip().splitlines()[:1]
            raise PoolUnavailableError(
                f"no Ray cluster answers at {address} ({first[0] if first else error}); make this "
                "machine a node of it with `ray start`, or change ray_address"
            ) from error

    def close(self) -> None:
        """Leave the cluster; what this process started there ends."""
        _RAY.shutdown()

    async def nodes(self) -> Sequence[NodeFacts]:
        """Which nodes are there now?"""
        return await asyncio.to_thread(_nodes)

    def actor(self, opened: Open) -> RayActor:
        """Have an actor on a node that the selectors allow."""
        first, *others = opened.selectors
        options: dict[str, Any] = {"label_selector": first} if first else {}
        if others:
            options["fallback_strategy"] = [{"label_selector": one} for one in others]
        handle = (
            _RAY.remote(RayReplica)
            .options(
                num_cpus=opened.cores,
                # The dispatcher places what was lost anew, and this driver starts another actor.
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=_MAX_CONCURRENCY,
                **options,
            )
            .remote(msgspec.msgpack.encode(opened.job))
        )
        return RayActor(handle)


def _nodes() -> list[NodeFacts]:
    now_s = time.time()
    leaves_ms: dict[str, int] = state.get_draining_nodes()
    found: list[NodeFacts] = []
    for node in _RAY.nodes():
        if node["Alive"]:
            node_id = str(node["NodeID"])
            until_ms = leaves_ms.get(node_id)
            # 0 is a notice without a time.
            left_s = None if until_ms is None else max(0.0, until_ms / _MS_PER_S - now_s)
            labels = {k: v for k, v in node["Labels"].items() if not k.startswith(_OWN_LABELS)}
            cores = float(node["Resources"].get("CPU", 0.0))
            found.append(NodeFacts(node_id=node_id, labels=labels, cores=cores, leaves_in_s=left_s))
    return found
