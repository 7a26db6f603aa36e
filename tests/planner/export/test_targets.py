"""Structural checks, and Kubernetes' own schema; those of the other tools are not installed here.

`docs/planning.md` says which of the tools have read such files.
"""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from steelyard.domain.offering import InstanceType, Offering
from steelyard.errors import ConfigError
from steelyard.planner.export.machines import PlannedNode
from steelyard.planner.export.targets import export_nodes
from steelyard.planner.export.yaml_text import yaml_text


def node(provider: str, name: str, machines: int = 3, **changes: Any) -> PlannedNode:
    machine = InstanceType(
        name=name,
        provider=provider,
        arch=changes.get("arch", "x86_64"),
        vcpus=8,
        memory_bytes=2**34,
        accelerator_count=changes.get("gpus", 0),
    )
    offering = Offering(
        name=f"{provider}/r1/{name}/on_demand",
        instance_type=machine,
        region="r1",
        capacity_type=changes.get("capacity_type", "on_demand"),
        usd_per_hour=0.5,
        price_date="2026-07-20",
        price_source="test",
    )
    label = re.sub("[^a-z0-9]+", "-", f"{provider}-{name}".lower())
    return PlannedNode(name=label, offering=offering, machines=machines, models=("m",), tools=True)


NODES = (
    node("aws", "m9g.xlarge", arch="arm64"),
    node("azure", "Standard_D8_v6", capacity_type="spot"),
    node("gcp", "g2-standard-4", machines=1, gpus=1),
)


def test_skypilot_gets_one_task_per_kind_of_machine() -> None:
    files = export_nodes("skypilot", NODES)
    assert sorted(files) == [
        "aws-m9g-xlarge.sky.yaml",
        "azure-standard-d8-v6.sky.yaml",
        "gcp-g2-standard-4.sky.yaml",
    ]
    text = files["azure-standard-d8-v6.sky.yaml"]
    assert text.endswith(
        'name: "azure-standard-d8-v6"\n'
        "num_nodes: 3\n"
        "resources:\n"
        '  infra: "azure/r1"\n'
        '  instance_type: "Standard_D8_v6"\n'
        "  use_spot: true\n"
        "  labels:\n"
        '    steelyard-hardware: "x86"\n'
        '    steelyard-pool: "azure-standard-d8-v6"\n'
    )


def test_karpenter_pools_may_grow_to_the_planned_machines_and_no_further() -> None:
    files = export_nodes("karpenter", NODES)
    assert sorted(files) == [f"{p}.nodepools.yaml" for p in ("aws", "azure", "gcp")]
    text = files["aws.nodepools.yaml"]
    assert 'cpu: "24"' in text
    assert 'kind: "EC2NodeClass"' in text
    assert '- key: "kubernetes.io/arch"\n          operator: "In"' in text
    assert '- "arm64"' in text
    assert '- "on-demand"' in text
    assert '- "spot"' in files["azure.nodepools.yaml"]


def test_kubernetes_puts_one_pod_on_each_machine() -> None:
    text = export_nodes("kubernetes", NODES)["deployments.yaml"]
    assert text.count('kind: "Deployment"') == 3
    assert text.count("\n---\n") == 2
    assert text.count("podAntiAffinity") == 3
    assert text.count("nvidia.com/gpu") == 1
    assert "replicas: 3" in text
    for document in yaml.safe_load_all(text):
        for version in ("1.31", "1.37"):
            kubernetes_validate.validate(document, version, strict=True)


def test_ray_gets_one_cluster_per_region_with_the_planned_workers() -> None:
    files = export_nodes("ray", NODES)
    assert sorted(files) == ["aws-r1.ray.yaml", "azure-r1.ray.yaml", "gcp-r1.ray.yaml"]
    assert 'priority: "Spot"' in files["azure-r1.ray.yaml"]
    text = files["aws-r1.ray.yaml"]
    assert 'head_node_type: "head"' in text
    assert "min_workers: 3" in text
    assert "max_workers: 3" in text
    assert "steelyard-arm: 1" in text


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="karpenter, kubernetes, ray, skypilot"):
        export_nodes("nomad", NODES)


def test_words_that_yaml_reads_as_truth_values_are_quoted() -> None:
    text = yaml_text([{"no": "yes", "a": ["on", True, None, 1.5, []]}, {"b": {}}], "c")
    assert text == (
        '# c\n"no": "yes"\na:\n  - "on"\n  - true\n  - null\n  - 1.5\n  - []\n---\nb: {}\n'
    )
