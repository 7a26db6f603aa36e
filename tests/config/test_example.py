import re
from pathlib import Path

import msgspec
import pytest

from steelyard.config import aliases, limits, pool_settings, ray_settings, settings
from steelyard.config.catalog_table import load_catalog
from steelyard.config.figures_file import FORMAT, FiguresFile, write_figures
from steelyard.config.pool_specs import pool_spec
from steelyard.config.settings import load_settings
from steelyard.domain.pool import LlmCurve
from steelyard.placement.baselines import policy_names

_CURVE = LlmCurve(
    ttft_floor_s=0.0,
    prefill_s_per_token=0.001,
    itl_base_s=0.01,
    itl_slope_s=0.001,
    concurrency_cap=8,
    context_tokens=4096,
    predicted=False,
    source="test",
)
FIGURES = FiguresFile(
    format=FORMAT,
    model="",
    target="local",
    engine="",
    machine="",
    offering="",
    replicas=1,
    date="2026-11-22",
    source="test",
    curve=_CURVE,
    quality="ok",
    doubts=(),
    loo_error_frac=None,
    itl_points=3,
    prefill_points=3,
    prompt_tokens=64,
    output_tokens=48,
    longest_tokens=2048,
    figures=(),
)
_EXAMPLE = Path(__file__).parents[2] / "steelyard.example.toml"
_SECTIONS = (
    settings.GatewaySection,
    settings.StoreSection,
    settings.PolicySection,
    pool_settings.EmbeddedPoolSettings,
    pool_settings.ToolPoolSettings,
    pool_settings.McpPoolSettings,
    pool_settings.EndpointPoolSettings,
    ray_settings.RayPoolSettings,
    pool_settings.CurveSettings,
    pool_settings.TokenPriceSettings,
    limits.LimitsSection,
    limits.LimitSettings,
    limits.SpendCapSettings,
    aliases.AliasSettings,
    aliases.CandidateSettings,
)


def test_the_example_is_a_working_configuration() -> None:
    loaded = load_settings(_EXAMPLE)
    assert set(loaded.pools) == {"local", "tools"}


def test_every_commented_setting_of_the_example_is_valid(tmp_path: Path) -> None:
    everything = re.sub(
        r"^#(?=[a-z\[])", "", _EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    path = tmp_path / "steelyard.toml"
    path.write_text(everything, encoding="utf-8")
    for name, model in (("local", "smollm2-135m"), ("gpu", "qwen2.5-0.5b")):
        measured = msgspec.structs.replace(FIGURES, model=model)
        write_figures(tmp_path / f"{name}-figures.json", measured)
    loaded = load_settings(path)
    catalog = load_catalog()
    specs = [pool_spec(name, pool, catalog) for name, pool in loaded.pools.items()]
    assert [spec.name for spec in specs] == [
        "local",
        "embeddings",
        "tools",
        "cluster",
        "documents",
        "tickets",
        "gpu",
        "vendor",
    ]


@pytest.mark.parametrize("section", _SECTIONS)
def test_every_setting_stands_in_the_example(section: type[msgspec.Struct]) -> None:
    text = _EXAMPLE.read_text(encoding="utf-8")
    for key in section.__struct_fields__:
        written = (
            rf"^#?(\[pools\.\w+\.{key}\]|\[limits\.{key}\.\w+\]|\[\[\w+\.\w+\.{key}\]\]|{key} = )"
        )
        assert re.search(written, text, re.MULTILINE), key


def test_every_policy_is_named_in_the_example() -> None:
    text = _EXAMPLE.read_text(encoding="utf-8")
    for name in policy_names():
        assert name in text
