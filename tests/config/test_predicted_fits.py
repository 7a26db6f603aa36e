import statistics

import pytest

from steelyard.config.catalog_table import Catalog, hardware_key, load_catalog
from steelyard.config.predicted_fits import PARTS, SIZES, measured_cases, with_predictions
from steelyard.perf.roofline import held_out_errors

HARDWARE = ("arm", "x86", "gpu")


@pytest.fixture(scope="module")
def measured() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def catalog(measured: Catalog) -> Catalog:
    return with_predictions(measured)


def test_measured_figures_are_left_as_they_are(measured: Catalog, catalog: Catalog) -> None:
    for key, fits in measured.llm_fits.items():
        assert catalog.llm_fits[key][: len(fits)] == fits


def test_every_estimate_is_marked_and_stands_where_nothing_was_measured(
    measured: Catalog, catalog: Catalog
) -> None:
    guessed = 0
    for key, fits in catalog.llm_fits.items():
        known = {fit.model for fit in measured.llm_fits.get(key, ())}
        for fit in fits:
            assert (fit.origin == "predicted") == (fit.model not in known)
            if fit.origin == "predicted":
                guessed += 1
                assert fit.curve.predicted
                assert (fit.quality, fit.measured_on, fit.points) == ("weak", "", 0)
                assert "not measured on this machine" in fit.curve.source
    assert guessed > 100


def test_a_model_that_does_not_fit_into_memory_is_not_predicted(catalog: Catalog) -> None:
    for offering in catalog.offerings:
        if offering.instance_type.accelerator_count:
            continue
        for fit in catalog.llm_fits.get(hardware_key(offering), ()):
            if fit.origin == "predicted":
                assert SIZES[fit.model].weight_bytes < offering.instance_type.memory_bytes


def test_nothing_is_predicted_for_silicon_of_which_nothing_was_measured(catalog: Catalog) -> None:
    graviton2 = catalog.offering("aws/m6g.xlarge")
    assert not catalog.llm_fits.get(hardware_key(graviton2))


def test_held_out_errors_are_those_that_the_documentation_states(measured: Catalog) -> None:
    # What decode alone adds per stream is a small part of a gap, so its own error is the larger.
    most = {
        "itl": dict.fromkeys(HARDWARE, 0.35),
        "slope": {"arm": 0.32, "x86": 0.29, "gpu": 0.47},
        "prefill": dict.fromkeys(HARDWARE, 0.35),
    }
    for part in PARTS:
        cases, seconds = measured_cases(measured, part)
        errors = held_out_errors(cases, seconds, [f"{c.silicon} {c.model}" for c in cases])
        for hardware in HARDWARE:
            mine = [e for c, e in zip(cases, errors, strict=True) if c.hardware == hardware]
            assert statistics.median(mine) <= most[part][hardware]
