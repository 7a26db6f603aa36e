"""Files for SkyPilot, Karpenter, Kubernetes and Ray, made from a plan's machines.

Each exporter turns nodes into file names and texts. What the user must still fill in (a node
class, a project, an image) stands in the file's first lines.
"""

from collections.abc import Callable, Mapping

from steelyard.errors import ConfigError
from steelyard.planner.export.machines import PlannedNode, ray_labels
from steelyard.planner.export.yaml_text import Yaml, yaml_text

Files = dict[str, str]

_ZONE = {"gcp": "-a"}
_NODE_CLASSES = {
    "aws": ("karpenter.k8s.aws", "EC2NodeClass"),
    "azure": ("karpenter.azure.com", "AKSNodeClass"),
    "gcp": ("karpenter.k8s.gcp", "GCENodeClass"),
}
_KUBERNETES_ARCH = {"arm64": "arm64", "x86_64": "amd64"}


def export_nodes(target: str, nodes: tuple[PlannedNode, ...]) -> Files:
    """Which files does a tool need to rent these machines?

    Args:
        target: `skypilot`, `karpenter`, `kubernetes` or `ray`.
        nodes: The machines.

    Returns:
        File name to text.

    Raises:
        ConfigError: There is no such target.
    """
    exporters: Mapping[str, Callable[[tuple[PlannedNode, ...]], Files]] = {
        "karpenter": karpenter_files,
        "kubernetes": kubernetes_files,
        "ray": ray_files,
        "skypilot": skypilot_files,
    }
    if target not in exporters:
        raise ConfigError(f"--to {target} is not known; allowed are {', '.join(sorted(exporters))}")
    return exporters[target](nodes)


def skypilot_files(nodes: tuple[PlannedNode, ...]) -> Files:
    """One SkyPilot task per kind of machine; `sky launch FILE` rents its machines."""
    return {
        f"{node.name}.sky.yaml": yaml_text(
            [
                {
                    "name": node.name,
                    "num_nodes": node.machines,
                    "resources": {
                        "infra": f"{node.offering.provider}/{node.offering.region}",
                        "instance_type": node.offering.instance_type.name,
                        "use_spot": node.spot,
                        "labels": node.labels(),
                    },
                }
            ],
            f"{_duty(node)}\nAdd `setup` and `run` for what the machines shall do.",
        )
        for node in nodes
    }


def karpenter_files(nodes: tuple[PlannedNode, ...]) -> Files:
    """One file of NodePools per provider; each may grow to the planned number of machines."""
    files: Files = {}
    for provider in sorted({node.offering.provider for node in nodes}):
        mine = [node for node in nodes if node.offering.provider == provider]
        files[f"{provider}.nodepools.yaml"] = yaml_text(
            [_node_pool(node) for node in mine],
            "Karpenter v1. The node class `default` must exist in the cluster.\n"
            + "\n".join(_duty(node) for node in mine),
        )
    return files


def _node_pool(node: PlannedNode) -> Yaml:
    machine = node.offering.instance_type
    group, kind = _NODE_CLASSES[node.offering.provider]
    wanted = {
        "node.kubernetes.io/instance-type": machine.name,
        "kubernetes.io/arch": _KUBERNETES_ARCH[machine.arch],
        "topology.kubernetes.io/region": node.offering.region,
        "karpenter.sh/capacity-type": "spot" if node.spot else "on-demand",
    }
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": node.name},
        "spec": {
            "limits": {"cpu": str(machine.vcpus * node.machines)},
            "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "10m"},
            "template": {
                "metadata": {"labels": node.labels()},
                "spec": {
                    "nodeClassRef": {"group": group, "kind": kind, "name": "default"},
                    "requirements": [
                        {"key": key, "operator": "In", "values": [value]}
                        for key, value in wanted.items()
                    ],
                },
            },
        },
    }


def kubernetes_files(nodes: tuple[PlannedNode, ...]) -> Files:
    """One Deployment per kind of machine: a pod on each, kept apart by host name."""
    return {
        "deployments.yaml": yaml_text(
            [_deployment(node) for node in nodes],
            "Nodes with the label steelyard-pool must exist (see the karpenter export).\n"
            "Replace each image `your-image` by what shall run there.\n"
            + "\n".join(_duty(node) for node in nodes),
        )
    }


def _deployment(node: PlannedNode) -> Yaml:
    app = {"app.kubernetes.io/name": node.name}
    gpus = node.offering.instance_type.accelerator_count
    container: dict[str, Yaml] = {
        "name": "worker",
        "image": "your-image",
        "env": [
            {"name": "STEELYARD_MODELS", "value": ",".join(node.models)},
            {"name": "STEELYARD_TOOLS", "value": "1" if node.tools else "0"},
        ],
    }
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    apart: Yaml = {
        "labelSelector": {"matchLabels": app},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": node.name, "labels": app},
        "spec": {
            "replicas": node.machines,
            "selector": {"matchLabels": app},
            "template": {
                "metadata": {"labels": {**app, **node.labels()}},
                "spec": {
                    "nodeSelector": {"steelyard-pool": node.name},
                    "affinity": {
                        "podAntiAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": [apart]
                        }
                    },
                    "containers": [container],
                },
            },
        },
    }


def ray_files(nodes: tuple[PlannedNode, ...]) -> Files:
    """One Ray cluster per provider and region; its head is one machine more, of the cheapest."""
    files: Files = {}
    for provider, region in sorted({(n.offering.provider, n.offering.region) for n in nodes}):
        mine = [n for n in nodes if (n.offering.provider, n.offering.region) == (provider, region)]
        head = min(mine, key=lambda n: (n.offering.usd_per_hour, n.name))
        types: dict[str, Yaml] = {"head": _ray_type(head, 0, {})}
        for node in mine:
            types[node.name] = _ray_type(
                node, node.machines, {f"steelyard-{node.offering.instance_type.hardware}": 1}
            )
        cluster: Yaml = {
            "cluster_name": f"steelyard-{provider}-{region}",
            "max_workers": sum(node.machines for node in mine),
            "provider": _ray_provider(provider, region),
            "auth": {"ssh_user": "ubuntu"},
            "head_node_type": "head",
            "available_node_types": types,
        }
        files[f"{provider}-{region}.ray.yaml"] = yaml_text(
            [cluster],
            "The head is one machine more than planned. Replace `your-...`.\n"
            + "\n".join(_duty(node) for node in mine),
        )
    return files


def _ray_type(node: PlannedNode, machines: int, resources: Mapping[str, Yaml]) -> Yaml:
    name = node.offering.instance_type.name
    configs: dict[str, Yaml] = {
        "aws": {
            "InstanceType": name,
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if node.spot else {}),
        },
        "azure": {
            "azure_arm_parameters": {"vmSize": name, **({"priority": "Spot"} if node.spot else {})}
        },
        "gcp": {
            "machineType": name,
            **({"scheduling": [{"preemptible": True}]} if node.spot else {}),
        },
    }
    return {
        "min_workers": machines,
        "max_workers": machines,
        "resources": resources,
        # Pools of kind "ray" select nodes by them.
        "labels": ray_labels(node.offering),
        "node_config": configs[node.offering.provider],
    }


def _ray_provider(provider: str, region: str) -> Yaml:
    if provider == "azure":
        return {"type": "azure", "location": region, "resource_group": "your-resource-group"}
    if provider == "gcp":
        return {
            "type": "gcp",
            "region": region,
            "availability_zone": region + _ZONE["gcp"],
            "project_id": "your-project",
        }
    return {"type": "aws", "region": region}


def _duty(node: PlannedNode) -> str:
    work = [*node.models, *(["tools"] if node.tools else [])]
    return (
        f"{node.name}: {node.machines} x {node.offering.name} at {node.offering.usd_per_hour:g}"
        f" USD/h each, for {', '.join(work) or 'no step'}."
    )
