import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.config.pool_settings import (
    CurveSettings,
    EmbeddedPoolSettings,
    EndpointPoolSettings,
    TokenPriceSettings,
    ToolPoolSettings,
)
from steelyard.config.pool_specs import local_offering, pool_spec
from steelyard.domain.offering import TokenPrice
from steelyard.errors import ConfigError

URLS = ("http://a/v1", "http://b/v1")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize("name", ["aws/m7i.large", "aws/m9g.large"])
def test_a_machine_of_two_cores_is_paid_for_once(name: str, catalog: Catalog) -> None:
    offering = catalog.offering(name)
    assert offering.instance_type.vcpus == 2
    engine = pool_spec("e", EmbeddedPoolSettings(replicas=1, offering=name), catalog)
    tools = pool_spec("t", ToolPoolSettings(cores=1.0, offering=name), catalog)
    rents = [spec.usd_per_hour * spec.replicas for spec in (engine, tools)]
    assert sum(rents) == pytest.approx(offering.usd_per_hour)
    assert {engine.offering, tools.offering} == {offering.name}
    assert engine.arch == tools.arch == offering.instance_type.arch


def test_replicas_of_an_engine_pay_a_core_each_or_the_share_that_is_set(catalog: Catalog) -> None:
    offering = catalog.offering("aws/m7i.large")
    spec = pool_spec(
        "e", EmbeddedPoolSettings(replicas=2, offering=offering.name, model="m"), catalog
    )
    assert (spec.replicas, spec.usd_per_hour) == (2, offering.usd_per_hour / 2)
    share = EmbeddedPoolSettings(offering=offering.name, machine_frac=0.25, concurrency_cap=5)
    spec = pool_spec("e", share, catalog)
    assert spec.usd_per_hour == offering.usd_per_hour / 4
    curve = spec.llm_curves["smollm2-135m"]
    assert (curve.concurrency_cap, curve.predicted) == (5, True)


def test_this_machine_is_priced_as_one_of_its_architecture(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, arch in (("x86_64", "x86_64"), ("aarch64", "arm64")):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert local_offering(catalog, None).instance_type.arch == arch
        spec = pool_spec("e", EmbeddedPoolSettings(), catalog)
        assert spec.hardware == ("arm" if arch == "arm64" else "x86")


def test_tools_have_the_memory_and_speed_of_the_cores_they_pay_for(catalog: Catalog) -> None:
    offering = catalog.offering("aws/m7i.large")
    spec = pool_spec("t", ToolPoolSettings(slots=4, cores=0.5, offering=offering.name), catalog)
    curve = spec.tool_curve
    figure = catalog.tool_curve(offering)
    assert curve is not None
    assert figure is not None
    assert (curve.slots, curve.cores) == (4, 0.5)
    assert curve.memory_bytes == offering.instance_type.memory_bytes // 4
    assert curve.relative_speed == figure.relative_speed


def test_an_endpoint_has_the_price_of_its_machine_or_its_own(catalog: Catalog) -> None:
    offering = catalog.offering("aws/m9g.large")
    far = EndpointPoolSettings(base_urls=URLS, models=("m", "n"), offering=offering.name)
    spec = pool_spec("far", far, catalog)
    assert (spec.usd_per_hour, spec.replicas) == (offering.usd_per_hour, 2)
    assert (spec.provider, spec.arch, spec.hardware) == ("aws", "arm64", "arm")
    assert set(spec.llm_curves) == {"m", "n"}
    own = EndpointPoolSettings(base_urls=URLS, models=("m",), usd_per_hour=7.0, provider="us")
    spec = pool_spec("far", own, catalog)
    assert (spec.usd_per_hour, spec.hardware, spec.provider) == (7.0, "vendor", "us")


def test_a_vendor_is_paid_by_the_token_alone(catalog: Catalog) -> None:
    price = TokenPriceSettings(input_usd_per_million=2.0, output_usd_per_million=8.0)
    curve = CurveSettings(itl_base_s=0.5, context_tokens=100)
    vendor = EndpointPoolSettings(base_urls=URLS[:1], models=("m",), token_price=price, curve=curve)
    spec = pool_spec("v", vendor, catalog)
    assert spec.usd_per_hour == 0.0
    # Without a price of their own, cached tokens cost what others do.
    assert spec.token_price == TokenPrice(
        usd_per_input_token=2e-6, usd_per_cached_token=2e-6, usd_per_output_token=8e-6
    )
    assert (spec.llm_curves["m"].itl_base_s, spec.llm_curves["m"].context_tokens) == (0.5, 100)


def test_an_offering_that_is_not_in_the_catalogue_is_named(catalog: Catalog) -> None:
    for pool in (
        EmbeddedPoolSettings(offering="aws/m7i.lage"),
        ToolPoolSettings(offering="aws/m7i.lage"),
        EndpointPoolSettings(base_urls=URLS, models=("m",), offering="aws/m7i.lage"),
    ):
        with pytest.raises(ConfigError, match=r"'aws/m7i.lage' is not in .*nearest: .*m7i.large"):
            pool_spec("p", pool, catalog)


@pytest.mark.parametrize(("kv_tokens", "source"), [(None, ""), (400_000, "given")])
def test_an_endpoint_says_whose_figure_its_memory_is(
    kv_tokens: int | None, source: str, catalog: Catalog
) -> None:
    pool = EndpointPoolSettings(base_urls=URLS, models=("m",), kv_tokens=kv_tokens)
    spec = pool_spec("e", pool, catalog)
    assert (spec.kv_tokens, spec.kv_tokens_source) == (kv_tokens, source)
