from pathlib import Path

import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.settings import load_settings
from steelyard.config.spend_caps import capped_specs
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.errors import ConfigError

_POOL = """
[pools.{name}]
kind = "endpoint"
base_urls = ["http://127.0.0.1:9/v1"]
models = ["m"]
provider = "{provider}"
token_price = {{ input_usd_per_million = 1.0, output_usd_per_million = 2.0 }}
"""


def _specs(folder: Path, limits: str) -> dict[str, PoolSpec]:
    path = folder / "steelyard.toml"
    names = [("a", "openai"), ("b", "openai"), ("c", "own")]
    pools = "".join(_POOL.format(name=name, provider=provider) for name, provider in names)
    path.write_text(pools + limits, encoding="utf-8")
    settings = load_settings(path)
    found = capped_specs(settings.pools, settings.limits, load_catalog())
    return {spec.name: spec for spec in found}


def test_a_cap_is_known_to_all_pools_of_its_provider(tmp_path: Path) -> None:
    specs = _specs(tmp_path, "[limits.providers.openai]\nusd_per_day = 20\n")
    cap = SpendCap(usd_per_day=20.0)
    assert [specs[name].spend_cap for name in "abc"] == [cap, cap, None]


def test_a_cap_of_no_provider_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limits.providers.opnai .*did you mean openai"):
        _specs(tmp_path, "[limits.providers.opnai]\nusd_per_day = 20\n")
