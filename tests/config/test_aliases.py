"""Aliases: further names of models, checked when the file is read."""

from pathlib import Path

import pytest

from steelyard.config.aliases import aliases_of, with_aliases
from steelyard.config.catalog_table import load_catalog
from steelyard.config.pool_specs import pool_spec
from steelyard.config.settings import Settings, load_settings
from steelyard.errors import ConfigError

POOLS = """
[pools.local]
kind = "embedded"
[pools.vendor]
kind = "endpoint"
base_urls = ["http://127.0.0.1:9/custom/base/v1"]
models = ["big", "small"]
usd_per_hour = 1.0
"""


def _load(tmp_path: Path, aliases: str) -> Settings:
    path = tmp_path / "s.toml"
    path.write_text(POOLS + aliases, encoding="utf-8")
    return load_settings(path)


def test_an_alias_means_one_model_per_pool(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        '[aliases.fast]\ncandidates = [{ model = "smollm2-135m" }, { model = "small" }, '
        '{ pool = "vendor", model = "big" }]\n[aliases.deep]\ncandidates = [{ model = "big" }]',
    )
    found = {name: aliases_of(name, pool, loaded.aliases) for name, pool in loaded.pools.items()}
    assert found == {
        "local": {"fast": "smollm2-135m"},
        # The first candidate of a pool counts.
        "vendor": {"fast": "small", "deep": "big"},
    }


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ('[aliases.big]\ncandidates = [{ model = "small" }]', "name of a model already"),
        ("[aliases.a]\ncandidates = []", "candidates is empty"),
        ('[aliases.a]\ncandidates = [{ model = "bog" }]', "'bog', which any pool"),
        ('[aliases.a]\ncandidates = [{ model = "big", pool = "local" }]', "pool local does not"),
        ('[aliases.a]\ncandidates = [{ model = "big", pool = "no" }]', "pool 'no'"),
        ('[aliases.a]\ncandidates = [{ model = "big", weight = 1 }]', "weight"),
    ],
)
def test_an_alias_that_means_nothing_is_refused(tmp_path: Path, aliases: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        _load(tmp_path, aliases)
    assert "\n" not in str(caught.value)


def test_an_alias_is_placed_like_the_model_that_it_means(tmp_path: Path) -> None:
    loaded = _load(tmp_path, '[aliases.fast]\ncandidates = [{ model = "small" }]')
    spec = pool_spec("vendor", loaded.pools["vendor"], load_catalog())
    named = with_aliases(spec, {"fast": "small"})
    assert named.llm_curves["fast"] == spec.llm_curves["small"]
    assert {*named.llm_curves} == {"big", "small", "fast"}
