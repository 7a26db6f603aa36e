"""A driver whose cluster is this process: its nodes are what a JSON file says, read anew.

Everything but Ray is real: the frames, the replicas' hosts and the tool workers.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from steelyard.pools.ray.actors import ActorLostError
from steelyard.pools.ray.driver import main
from steelyard.pools.ray.frames import Open
from steelyard.pools.ray.host import ReplicaHost, Told
from steelyard.pools.ray.labels import NodeFacts, selects


class LocalCluster:
    """Nodes by the file whose path is the address."""

    def __init__(self, address: str) -> None:
        self._path = Path(address)

    def listed(self) -> list[NodeFacts]:
        table = json.loads(self._path.read_text(encoding="utf-8"))
        return [msgspec.convert({"node_id": key, **value}, NodeFacts) for key, value in table]

    async def nodes(self) -> Sequence[NodeFacts]:
        return self.listed()

    def actor(self, opened: Open) -> "LocalActor":
        fit = [
            node
            for node in self.listed()
            if node.leaves_in_s is None and any(selects(s, node.labels) for s in opened.selectors)
        ]
        return LocalActor(self, fit[0].node_id, msgspec.msgpack.encode(opened.job))


class LocalActor:
    """An actor that is lost when its node is no longer listed."""

    def __init__(self, cluster: LocalCluster, node_id: str, job: bytes) -> None:
        self._cluster = cluster
        self._node_id = node_id
        self._host = ReplicaHost(job)
        self._ends: set[asyncio.Task[None]] = set()

    def _check(self) -> None:
        if self._node_id not in [node.node_id for node in self._cluster.listed()]:
            raise ActorLostError(f"node {self._node_id} is gone")

    async def node_id(self) -> str:
        return self._node_id

    async def begin(self, ordinal: int) -> tuple[str, int, str]:
        return await self._host.begin(ordinal)

    async def ask(self, body: bytes) -> None:
        self._check()
        await self._host.ask(body)

    async def drop(self, request_id: int) -> None:
        await self._host.drop(request_id)

    async def pull(self) -> list[Told]:
        pulling = asyncio.create_task(self._host.pull())
        try:
            while not pulling.done():
                self._check()
                await asyncio.wait([pulling], timeout=0.05)
            return await pulling
        finally:
            pulling.cancel()

    async def end(self) -> None:
        await self._host.end()

    def kill(self) -> None:
        task = asyncio.get_running_loop().create_task(self._host.end())
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)


if __name__ == "__main__":
    main(LocalCluster)
