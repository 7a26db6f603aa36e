"""What does a pool on Ray cost beside one on this machine? `python benchmarks/ray_pool.py`.

Starts a Ray cluster of two virtual nodes here, and runs the same short tool in a local pool and in
a Ray pool. Prints also how long the pool takes to start,
what its driver holds in memory, and how soon a replica is back after its node was killed.
"""

import argparse
import asyncio
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steelyard.config.ray_settings import RayPoolSettings
from steelyard.pools.backend import ToolRequest
from steelyard.pools.ray.pool import RayToolPool
from steelyard.pools.tools import ProcessToolPool
from steelyard.runtime.ray_pools import ray_tools


class Watch:
    """Waits for replica 0."""

    def __init__(self) -> None:
        self.is_up = asyncio.Event()
        self.is_down = asyncio.Event()

    async def told(
        self, replica: int, *, up: bool, reason: str, draining: bool = False, rented: bool = True
    ) -> None:
        """A replica changed."""
        if replica == 0:
            here, gone = (self.is_up, self.is_down) if up else (self.is_down, self.is_up)
            here.set()
            gone.clear()


async def median_ms(pool: ProcessToolPool | RayToolPool, calls: int) -> float:
    """Median of the wall time of calls one after another, in milliseconds."""
    took: list[float] = []
    for _ in range(calls):
        begun_s = time.perf_counter()
        await pool.run(ToolRequest(tool="json:dumps", arguments={"obj": 1}))
        took.append(1000.0 * (time.perf_counter() - begun_s))
    return statistics.median(took)


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(cluster: Any, calls: int) -> None:  # noqa: ANN401 - Ray's own, without types
    """Run both pools and print."""
    local = ProcessToolPool(slots=1)
    await local.start()
    await median_ms(local, 20)
    local_ms = await median_ms(local, calls)
    await local.close()
    first = cluster.add_node(num_cpus=1, labels={"kind": "bench"})
    watch = Watch()
    settings = RayPoolSettings(
        runs="tools", ray_address=cluster.address, labels={"kind": "bench"}, slots=1, sandbox="off"
    )
    pool = ray_tools("bench", settings, watch)
    begun_s = time.perf_counter()
    await pool.start()
    start_s = time.perf_counter() - begun_s
    await median_ms(pool, 20)
    ray_ms = await median_ms(pool, calls)
    driver_mb = rss_mb(pool.driver_pid or 0)
    cluster.add_node(num_cpus=1, labels={"kind": "bench"})
    await watch.is_up.wait()
    begun_s = time.perf_counter()
    cluster.remove_node(first, allow_graceful=False)
    await watch.is_down.wait()
    noticed_s = time.perf_counter() - begun_s
    await watch.is_up.wait()
    back_s = time.perf_counter() - begun_s
    await pool.close()
    print(f"a call of a tool, median of {calls}: {local_ms:.2f} ms local, {ray_ms:.2f} ms on Ray")
    print(f"start of the pool: {start_s:.1f} s; resident memory of its driver: {driver_mb:.0f} MB")
    print(f"after the kill of a node: noticed in {noticed_s:.1f} s, replica back in {back_s:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=300)
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray wants it so
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - after the environment

    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    print(f"{platform.platform()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}")
    print(f"load average {os.getloadavg()[0]:.1f}; no seed: nothing is drawn")
    try:
        asyncio.run(measure(cluster, asked.calls))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
