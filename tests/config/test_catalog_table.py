import subprocess
import sys

import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.errors import ConfigError


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def test_offers_arm_x86_and_gpu_of_three_providers(catalog: Catalog) -> None:
    kinds = {(o.provider, o.instance_type.hardware) for o in catalog.offerings}
    wanted = {(p, h) for p in ("aws", "azure", "gcp") for h in ("arm", "x86", "gpu")}
    assert wanted <= kinds


def test_every_offering_has_a_price_a_date_and_a_source(catalog: Catalog) -> None:
    assert len({o.name for o in catalog.offerings}) == len(catalog.offerings)
    for offering in catalog.offerings:
        assert offering.usd_per_hour > 0.0
        assert offering.price_date.startswith("2026-")
        assert offering.price_source


def test_every_curve_is_possible_and_names_its_source(catalog: Catalog) -> None:
    for fits in catalog.llm_fits.values():
        for fit in fits:
            assert fit.curve.itl_base_s >= 0.0
            assert fit.curve.itl_slope_s >= 0.0
            assert fit.curve.itl_base_s + fit.curve.itl_slope_s > 0.0
            assert fit.curve.prefill_s_per_token > 0.0
            assert fit.curve.concurrency_cap >= 1
            assert fit.measured_on in fit.curve.source


def test_the_reference_core_has_speed_one(catalog: Catalog) -> None:
    curve = catalog.tool_curve(catalog.offering("aws/m7i.2xlarge"))
    assert curve is not None
    assert curve.relative_speed == pytest.approx(1.0)


def test_the_sweep_with_the_nearest_prompt_is_taken(catalog: Catalog) -> None:
    offering = catalog.offering("aws/m9g.xlarge")
    short = catalog.llm_fit(offering, "smollm2-135m", prompt_tokens=100)
    long = catalog.llm_fit(offering, "smollm2-135m", prompt_tokens=3000)
    assert short is not None
    assert long is not None
    assert (short.prompt_tokens, long.prompt_tokens) == (256, 1024)


def test_engine_versions_are_kept_apart(catalog: Catalog) -> None:
    offering = catalog.offering("aws/c8i.4xlarge")
    assert catalog.llm_curve(offering, "qwen2.5-0.5b", "vllm-0.22.1") is None
    assert catalog.llm_curve(offering, "qwen2.5-0.5b", "vllm-0.27.1") is not None
    assert catalog.llm_curve(offering, "qwen2.5-0.5b") is not None


def test_a_borrowed_curve_is_marked_predicted(catalog: Catalog) -> None:
    curve = catalog.llm_curve(catalog.offering("gcp/g2-standard-4"), "llama-3.1-8b")
    assert curve is not None
    assert curve.predicted
    assert "gcp/g2-standard-16" in curve.source


def test_an_unknown_model_has_no_curve(catalog: Catalog) -> None:
    assert catalog.llm_curve(catalog.offerings[0], "gpt-2") is None
    assert "smollm2-135m" in catalog.models()


def test_a_misspelt_offering_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match=r"aws/m9g\.xlarge"):
        catalog.offering("aws/m9g.xlrge")


def test_median_leave_one_out_error_is_at_most_five_percent(catalog: Catalog) -> None:
    errors = sorted(
        fit.loo_error_frac
        for fits in catalog.llm_fits.values()
        for fit in fits
        if fit.loo_error_frac is not None and not fit.curve.predicted
    )
    assert errors[len(errors) // 2] <= 0.05


def test_reading_the_catalogue_loads_no_data_frames() -> None:
    code = "import sys, steelyard.config.catalog_table; sys.exit('polars' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
