"""A Ray cluster of virtual nodes on this machine, as `make test-ray` uses it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

ARM_SPOT = {"provider": "aws", "arch": "arm64", "capacity_type": "spot"}
X86 = {"provider": "gcp", "arch": "x86_64", "capacity_type": "on_demand"}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without room for replicas, and no other node."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - an extra, and slow

    head = {"num_cpus": 0, "include_dashboard": False, "labels": {"role": "head"}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()
