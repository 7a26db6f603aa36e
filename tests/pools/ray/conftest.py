"""A Ray cluster of virtual nodes on this machine, as `make test-ray` uses it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

ARM_SPOT = {"provider": "aws", "arch": "arm64", "capacity_type": "spot"}
X86 = {"provider": "gcp", "arch": "x86_64", "capacity_type": "on_demand"}


class Nodes:
    """A cluster whose nodes a test adds; they go with it.

    Args:
        cluster: With a head that has no room for replicas.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._added: dict[str, Any] = {}
        self.address = str(cluster.address)

    def add(self, cores: int, labels: dict[str, str]) -> str:
        """Add a node. Returns its id. Ray wants the main thread for that."""
        node = self._cluster.add_node(num_cpus=cores, labels=labels)
        self._added[node.node_id] = node
        return str(node.node_id)

    def lose(self, node_id: str) -> None:
        """Kill a node with all that runs there."""
        self._cluster.remove_node(self._added.pop(node_id), allow_graceful=False)

    def close(self) -> None:
        """Lose all that are left."""
        for node_id in [*self._added]:
            self.lose(node_id)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster with no node but its head."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's workers are nicer than all others by default, and starve on a machine that is busy.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray wants it so
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - an extra, and slow

    head = {"num_cpus": 0, "include_dashboard": False, "labels": {"role": "head"}}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[Nodes]:
    """Nodes of one test."""
    nodes = Nodes(cluster)
    yield nodes
    nodes.close()
