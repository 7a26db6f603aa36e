from pathlib import Path

import msgspec
import pytest

from steelyard.config.catalog_table import load_catalog
from steelyard.config.figures_file import FORMAT, FiguresFile, with_figures, write_figures
from steelyard.config.pool_specs import pool_spec
from steelyard.config.settings import load_settings
from steelyard.domain.pool import LlmCurve
from steelyard.errors import ConfigError

FIGURES = FiguresFile(
    format=FORMAT,
    model="qwen2.5-0.5b",
    target="http://10.0.0.5:8000/v1",
    engine="vllm-1",
    machine="here",
    offering="aws/m9g.xlarge",
    replicas=1,
    date="2026-11-22",
    source="test",
    curve=LlmCurve(
        ttft_floor_s=0.01,
        prefill_s_per_token=0.001,
        itl_base_s=0.01,
        itl_slope_s=0.001,
        concurrency_cap=8,
        context_tokens=4096,
        predicted=False,
        source="test",
    ),
    quality="ok",
    doubts=(),
    loo_error_frac=0.02,
    itl_points=5,
    prefill_points=4,
    prompt_tokens=64,
    output_tokens=48,
    longest_tokens=2048,
    figures=(),
)


def test_own_figures_count_before_published_ones(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_figures(path, FIGURES)
    catalog = with_figures(load_catalog(), (str(path),))
    offering = catalog.offering("aws/m9g.xlarge")
    fit = catalog.llm_fit(offering, "qwen2.5-0.5b", "vllm-0.22.1", prompt_tokens=1024)
    assert fit is not None
    assert (fit.origin, fit.curve) == ("own figures", FIGURES.curve)
    other = catalog.llm_fit(offering, "smollm2-135m", "vllm-0.22.1")
    assert other is not None
    assert other.origin != "own figures"


def test_the_same_pair_twice_is_refused(tmp_path: Path) -> None:
    paths = (tmp_path / "f.json", tmp_path / "g.json")
    for path in paths:
        write_figures(path, FIGURES)
    with pytest.raises(ConfigError, match="give one"):
        with_figures(load_catalog(), tuple(str(path) for path in paths))


POOL = """
[pools.gpu]
kind = "endpoint"
base_urls = ["http://10.0.0.5:8000/v1"]
models = ["{model}", "other"]
usd_per_hour = 1.0
figures = "f.json"
"""


def test_a_pool_takes_the_curve_of_its_model_from_the_file(tmp_path: Path) -> None:
    write_figures(tmp_path / "f.json", FIGURES)
    config = tmp_path / "steelyard.toml"
    config.write_text(POOL.format(model="qwen2.5-0.5b"), encoding="utf-8")
    pool = load_settings(config).pools["gpu"]
    spec = pool_spec("gpu", pool, load_catalog())
    assert spec.llm_curves["qwen2.5-0.5b"] == FIGURES.curve
    assert spec.llm_curves["other"].predicted


def test_figures_of_another_model_or_of_several_replicas_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "steelyard.toml"
    write_figures(tmp_path / "f.json", FIGURES)
    config.write_text(POOL.format(model="qwen2.5-0.4b"), encoding="utf-8")
    pool = load_settings(config).pools["gpu"]
    with pytest.raises(ConfigError, match="does not serve"):
        pool_spec("gpu", pool, load_catalog())
    write_figures(tmp_path / "f.json", msgspec.structs.replace(FIGURES, replicas=2))
    config.write_text(POOL.format(model="qwen2.5-0.5b"), encoding="utf-8")
    pool = load_settings(config).pools["gpu"]
    with pytest.raises(ConfigError, match="2 replicas"):
        pool_spec("gpu", pool, load_catalog())
