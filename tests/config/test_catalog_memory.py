"""Offerings of the catalogue hold so many tokens, and say that it is derived."""

from steelyard.config.catalog_explain import explain_offering
from steelyard.config.catalog_memory import catalog_kv_memory
from steelyard.config.catalog_table import load_catalog
from steelyard.config.predicted_fits import SIZES

L4 = "gcp/g2-standard-4"


def test_one_gpu_holds_what_its_weights_leave() -> None:
    found = catalog_kv_memory(load_catalog().offering(L4), "llama-3.1-8b")
    assert found is not None
    # 0.9 of 24 GiB less 16.06 GB, at 128 KiB per token.
    assert found.tokens == int((0.9 * 24 * 1024**3 - 8.03e9 * 2) / 131072)
    assert found.source.startswith("derived: 0.9 of 24 GiB of NVIDIA L4")


def test_nothing_is_derived_for_cpus_several_gpus_or_unknown_models() -> None:
    catalog = load_catalog()
    assert catalog_kv_memory(catalog.offering("aws/m7i.2xlarge"), "llama-3.1-8b") is None
    assert catalog_kv_memory(catalog.offering(L4), "a-model-of-my-own") is None
    many = next(o for o in catalog.offerings if o.instance_type.accelerator_count > 1)
    assert all(catalog_kv_memory(many, model) is None for model in SIZES)


def test_the_explanation_tells_that_it_is_derived() -> None:
    catalog = load_catalog()
    rows = explain_offering(catalog, catalog.offering(L4), "llama-3.1-8b")
    (memory,) = [row for row in rows if row.name == "key-value memory"]
    assert (memory.origin, memory.unit) == ("derived", "tokens")
