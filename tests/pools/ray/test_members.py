"""Which actors are a pool's replicas: on a cluster whose actors say nothing but their number."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from steelyard.pools.ray.frames import FromDriver, Open, ToolsJob
from steelyard.pools.ray.host import Told, installed_version
from steelyard.pools.ray.labels import NodeFacts
from steelyard.pools.ray.members import Members


class QuietActor:
    """Begins when it is told that it may, and has nothing to say."""

    def __init__(self, cluster: "QuietCluster") -> None:
        self._cluster = cluster

    async def node_id(self) -> str:
        return "a"

    async def begin(self, ordinal: int) -> tuple[str, int, str]:
        self._cluster.ordinals.append(ordinal)
        await self._cluster.may_begin.wait()
        return installed_version(), 0, ""

    async def ask(self, body: bytes) -> None: ...

    async def drop(self, request_id: int) -> None: ...

    async def pull(self) -> list[Told]:
        await asyncio.sleep(1.0)
        return []

    async def end(self) -> None: ...

    def kill(self) -> None: ...


class QuietCluster:
    """One node."""

    def __init__(self, cores: float) -> None:
        self.cores = cores
        self.ordinals: list[int] = []
        self.may_begin = asyncio.Event()

    async def nodes(self) -> Sequence[NodeFacts]:
        return [NodeFacts(node_id="a", labels={}, cores=self.cores)]

    def actor(self, opened: Open) -> QuietActor:
        return QuietActor(self)


def opened(replicas: int, *, again: bool = False) -> Open:
    job = ToolsJob(
        slots=1,
        sandbox="off",
        python_paths=(),
        cores=1.0,
        memory_bytes=1 << 30,
        processes=1,
        folder_bytes=1 << 20,
    )
    return Open(
        pool="t",
        address="",
        job=job,
        selectors=({},),
        cores=1.0,
        replicas=replicas,
        start_s=60.0,
        node_wait_s=0.0,
        again=again,
    )


async def test_actors_that_begin_at_once_on_one_node_get_numbers_of_their_own() -> None:
    cluster = QuietCluster(4.0)
    told: list[FromDriver] = []
    members = Members(opened(3), cluster, told.append, lambda _: None)
    opening = asyncio.create_task(members.open())
    await turns()
    cluster.may_begin.set()
    await opening
    members.scale(4)
    await turns()
    await members.close()
    assert sorted(cluster.ordinals) == [0, 1, 2, 3]


async def test_no_more_actors_begin_than_there_is_room_for() -> None:
    cluster = QuietCluster(2.0)
    told: list[FromDriver] = []
    members = Members(opened(4, again=True), cluster, told.append, lambda _: None)
    await members.open()
    await turns()
    cluster.may_begin.set()
    await turns()
    await members.close()
    assert len(cluster.ordinals) == 2
    up = Counter(getattr(one, "up", None) for one in told)
    assert up[True] == 2


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)
