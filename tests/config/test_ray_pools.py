"""What a Ray pool costs, and which settings make no sense."""

from pathlib import Path

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_specs import pool_spec
from steelyard.config.ray_settings import RayPoolSettings
from steelyard.config.settings import load_settings
from steelyard.errors import ConfigError

CATALOG = load_catalog()
LABELS = {
    "provider": "aws",
    "region": "us-east-1",
    "arch": "arm64",
    "capacity_type": "spot",
    "instance_type": "m9g.xlarge",
}


def test_a_replica_pays_its_share_of_the_machine_that_the_labels_name() -> None:
    machine = CATALOG.offering("aws/m9g.xlarge")
    for capacity_type in ("spot", "on_demand"):
        labels = {**LABELS, "region": machine.region, "capacity_type": capacity_type}
        pool = RayPoolSettings(runs="tools", labels=labels, max_replicas=7, cores=2.0)
        spec = pool_spec("p", pool, CATALOG)
        assert (spec.offering, spec.replicas, spec.arch) == (machine.name, 7, "arm64")
        share = 2.0 / machine.instance_type.vcpus
        assert spec.usd_per_hour == pytest.approx(machine.usd_per_hour * share)
        assert spec.tool_curve is not None
        assert spec.tool_curve.slots == 2


def test_an_engine_serves_the_packaged_model_unless_told_otherwise() -> None:
    spec = pool_spec("p", RayPoolSettings(runs="engine", labels={"arch": "arm64"}), CATALOG)
    assert list(spec.llm_curves) == ["smollm2-135m"]
    assert spec.arch == "arm64"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("min_replicas = 0", "min_replicas is 0"),
        ("max_replicas = 0", "max_replicas is 0"),
        ('labels = { arch = "a b" }', "arch is 'a b'; write a value"),
        ('fallback_labels = [{ arch = "arm64" }]', "give labels, too"),
        ("replicas = 3", "unknown key pools.p.replicas; did you mean"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, line: str, told: str) -> None:
    config = tmp_path / "steelyard.toml"
    text = f'[pools.p]\nkind = "ray"\nruns = "tools"\n{line}\n'
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="pools.p") as refused:
        load_settings(config)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
