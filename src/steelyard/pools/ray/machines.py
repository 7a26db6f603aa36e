"""The machines of a Ray cluster by offering, and how more of them are asked for."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.autoscaler import sdk

from steelyard.pools.ray.cluster import RayCluster
from steelyard.pools.ray.labels import NodeFacts

# Its functions have no types that say enough.
_SDK: Any = sdk
# Labels that together name an offering.
OFFERING_LABELS: tuple[str, ...] = ("provider", "region", "instance_type", "capacity_type")


def offering_of(node: NodeFacts) -> str:
    """Which offering is a node, by its labels? Empty where they do not say.

    >>> labels = dict(zip(OFFERING_LABELS, ("aws", "us-east-1", "m9g.large", "spot")))
    >>> offering_of(NodeFacts(node_id="n", labels=labels, cores=2.0))
    'aws/us-east-1/m9g.large/spot'
    """
    values = [node.labels.get(label, "") for label in OFFERING_LABELS]
    return "/".join(values) if all(values) else ""


class RayFleet:
    """A cluster as a fleet of machines; `close` leaves the cluster as it is.

    Args:
        address: As `ray.init` takes it.

    Raises:
        PoolUnavailableError: No cluster answers there.
    """

    def __init__(self, address: str) -> None:
        self._cluster = RayCluster(address)

    async def machines(self) -> dict[str, int]:
        """How many nodes of each offering are there, those told to leave not counted?"""
        nodes = await self._cluster.nodes()
        found = Counter(offering_of(node) for node in nodes if node.leaves_in_s is None)
        return {name: count for name, count in sorted(found.items()) if name}

    def request(self, machines: Mapping[str, int], cores: Mapping[str, int]) -> None:
        """Ask the cluster's autoscaler for so many nodes of each offering, whatever their load.

        It takes the place of what was asked for before. A cluster without an autoscaler notes it
        and stays as it is.

        Args:
            machines: Nodes by offering.
            cores: Cores of a node by offering.
        """
        bundles: list[dict[str, Any]] = []
        selectors: list[dict[str, str]] = []
        for name, count in sorted(machines.items()):
            labels = dict(zip(OFFERING_LABELS, name.split("/"), strict=True))
            bundles.extend({"CPU": cores[name]} for _ in range(count))
            selectors.extend(labels for _ in range(count))
        _SDK.request_resources(bundles=bundles, bundle_label_selectors=selectors)

    def close(self) -> None:
        """Leave the cluster."""
        self._cluster.close()
