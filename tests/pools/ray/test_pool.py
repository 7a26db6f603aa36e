"""A pool whose replicas come and go: all but Ray itself, with real tool workers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from steelyard.errors import (
    ConfigError,
    PoolRejectedError,
    PoolTimeoutError,
    PoolUnavailableError,
    ToolFailedError,
)
from steelyard.pools.backend import ToolBackend, ToolRequest
from steelyard.pools.elastic import ElasticBackend, PlacedToolBackend
from steelyard.pools.ray.frames import Open, ToolsJob
from steelyard.pools.ray.pool import RayToolPool

HERE = Path(__file__).parent
DRIVER = (sys.executable, str(HERE / "local_driver.py"))
ARM, X86 = {"arch": "arm64"}, {"arch": "x86_64"}


class Watch:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told_: list[tuple[int, bool, bool, bool]] = []
        self.up: set[int] = set()

    async def told(
        self, replica: int, *, up: bool, reason: str, draining: bool = False, rented: bool = True
    ) -> None:
        assert reason
        self.told_.append((replica, up, draining, rented))
        (self.up.add if up else self.up.discard)(replica)


class Nodes:
    """The file that the driver reads nodes from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def are(self, **nodes: dict[str, Any]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([*nodes.items()]), encoding="utf-8")
        new.replace(self.path)


def node(labels: dict[str, str], cores: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"labels": labels, "cores": cores, **more}


def pool_of(nodes: Nodes, watch: Watch, replicas: int = 1, most: int = 3) -> RayToolPool:
    job = ToolsJob(
        slots=2,
        sandbox="off",
        python_paths=(str(HERE), str(HERE.parent)),
        cores=1.0,
        memory_bytes=1 << 30,
        processes=64,
        folder_bytes=1 << 20,
    )
    opened = Open(
        pool="t",
        address=str(nodes.path),
        job=job,
        selectors=(ARM, X86),
        cores=1.0,
        replicas=replicas,
        start_s=60.0,
        node_wait_s=0.0,
    )
    return RayToolPool(opened, most, watch, DRIVER)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    nodes = Nodes(tmp_path / "nodes.json")
    nodes.are(a=node(ARM), b=node(X86, 2.0))
    return nodes


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def pool(nodes: Nodes, watch: Watch) -> AsyncIterator[RayToolPool]:
    pool = pool_of(nodes, watch)
    await pool.start()
    yield pool
    await pool.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(0.02)


def call(pool: RayToolPool, name: str, replica: int = 0, **arguments: Any) -> Any:
    request = ToolRequest(tool=name, arguments=arguments, timeout_s=60.0)
    return pool.run_on(request, replica)


async def test_runs_tools_and_tells_failures_as_any_pool_of_tools(pool: RayToolPool) -> None:
    assert isinstance(pool, ToolBackend)
    assert isinstance(pool, ElasticBackend)
    assert isinstance(pool, PlacedToolBackend)
    assert (await call(pool, "sample_tools:add", a=1, b=2)).result == 3
    with pytest.raises(ToolFailedError, match="too odd"):
        await call(pool, "sample_tools:fail", message="too odd")
    with pytest.raises(PoolRejectedError, match="No tool"):
        await call(pool, "sample_tools:nothing")
    with pytest.raises(PoolRejectedError, match="cannot be sent"):
        await call(pool, "sample_tools:add", a=object(), b=1)
    slow = ToolRequest(tool="sample_tools:sleep", arguments={"wall_s": 30}, timeout_s=0.2)
    with pytest.raises(PoolTimeoutError):
        await pool.run(slow)


async def test_replicas_that_are_not_there_are_down_and_not_rented(
    pool: RayToolPool, watch: Watch
) -> None:
    await until(lambda: watch.up == {0})
    assert {(1, False, False, False), (2, False, False, False)} <= set(watch.told_)
    with pytest.raises(PoolUnavailableError, match="replica 2 is down"):
        await call(pool, "sample_tools:add", 2, a=1, b=2)


async def test_scales_up_to_its_bounds_and_down_after_the_last_step(
    pool: RayToolPool, watch: Watch, tmp_path: Path
) -> None:
    pool.scale(99)
    await until(lambda: watch.up == {0, 1, 2})
    gate = tmp_path / "gate"
    marks: dict[str, Any] = {"folder": str(tmp_path), "mark": "m", "gate": str(gate)}
    last = asyncio.create_task(call(pool, "cluster_tools:note_and_wait", 2, **marks))
    await until((tmp_path / "m").exists)
    pool.scale(0)
    await until(lambda: watch.up == {0})
    assert (2, False, True, False) in watch.told_
    gate.touch()
    assert (await last).result == "m"


async def test_a_lost_node_fails_what_ran_there_and_its_replica_comes_back_elsewhere(
    pool: RayToolPool, watch: Watch, nodes: Nodes, tmp_path: Path
) -> None:
    marks: dict[str, Any] = {"folder": str(tmp_path), "mark": "m", "gate": str(tmp_path / "never")}
    running = asyncio.create_task(call(pool, "cluster_tools:note_and_wait", **marks))
    await until((tmp_path / "m").exists)
    nodes.are(b=node(X86, 2.0))
    with pytest.raises(PoolUnavailableError, match="node a is gone; retry"):
        await running
    await until(lambda: watch.told_[-1] == (0, True, False, True))
    assert (await call(pool, "sample_tools:add", a=1, b=2)).result == 3


async def test_a_notice_moves_the_replica_and_lets_what_runs_end(
    pool: RayToolPool, watch: Watch, nodes: Nodes, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    marks: dict[str, Any] = {"folder": str(tmp_path), "mark": "m", "gate": str(gate)}
    old = asyncio.create_task(call(pool, "cluster_tools:note_and_wait", **marks))
    await until((tmp_path / "m").exists)
    nodes.are(a=node(ARM, leaves_in_s=60.0), b=node(X86, 2.0))
    await until(lambda: (0, False, True, True) in watch.told_)
    await until(lambda: watch.up == {0})
    assert (await call(pool, "sample_tools:add", a=1, b=2)).result == 3
    gate.touch()
    assert (await old).result == "m"


async def test_where_nothing_fits_the_reason_is_one_line(nodes: Nodes, watch: Watch) -> None:
    nodes.are(a=node({"arch": "riscv"}))
    with pytest.raises(ConfigError, match=r"pools\.t: no node has arch=arm64 or arch=x86_64"):
        await pool_of(nodes, watch).start()
    nodes.are(a=node(ARM))
    with pytest.raises(ConfigError, match="room for 1 of 2"):
        await pool_of(nodes, watch, replicas=2).start()


async def test_a_driver_that_dies_is_started_again(pool: RayToolPool, watch: Watch) -> None:
    pool.scale(2)
    await until(lambda: watch.up == {0, 1})
    running = asyncio.create_task(call(pool, "sample_tools:sleep", wall_s=60))
    await asyncio.sleep(0)
    driver = pool.driver_pid
    assert driver is not None
    os.kill(driver, signal.SIGKILL)
    with pytest.raises(PoolUnavailableError, match="ended; retry"):
        await running
    await until(lambda: watch.up == {0, 1})
    assert pool.driver_pid != driver
    assert (await call(pool, "sample_tools:add", 1, a=1, b=2)).result == 3


async def test_a_driver_started_again_serves_what_there_is_room_for(
    nodes: Nodes, watch: Watch
) -> None:
    nodes.are(a=node(ARM, 2.0))
    pool = pool_of(nodes, watch, replicas=2)
    await pool.start()
    try:
        await until(lambda: watch.up == {0, 1})
        nodes.are(a=node(ARM))
        assert pool.driver_pid is not None
        os.kill(pool.driver_pid, signal.SIGKILL)
        await until(lambda: not watch.up)
        await until(lambda: len(watch.up) == 1)
        assert (await call(pool, "sample_tools:add", min(watch.up), a=1, b=2)).result == 3
        nodes.are(a=node(ARM, 2.0))
        await until(lambda: watch.up == {0, 1})
    finally:
        await pool.close()


async def test_a_driver_that_cannot_see_its_nodes_ends_and_another_one_starts(
    pool: RayToolPool, nodes: Nodes, watch: Watch
) -> None:
    await until(lambda: watch.up == {0})
    driver = pool.driver_pid
    nodes.path.write_text("no list of nodes", encoding="utf-8")
    await until(lambda: not watch.up)
    nodes.are(a=node(ARM))
    await until(lambda: watch.up == {0})
    assert pool.driver_pid != driver


async def test_a_cancelled_call_is_stopped_on_its_node(pool: RayToolPool) -> None:
    for _ in range(4):
        # More than the two slots: each is free again when the next one comes.
        running = asyncio.create_task(call(pool, "sample_tools:sleep", wall_s=60))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (await call(pool, "sample_tools:add", a=1, b=2)).result == 3
