"""When a fleet follows another demand, and when it stays."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.planner.test_load_curve import DEMAND

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.planner.changes import machine_changes, replanned
from steelyard.planner.plan import PlanOptions, plan_demand

OPTIONS = PlanOptions(with_baselines=False)
FULL = load_catalog()
CATALOG: Catalog = msgspec.structs.replace(
    FULL,
    offerings=tuple(
        FULL.offering(name)
        for name in ("aws/m9g.xlarge", "azure/Standard_F4als_v7", "gcp/n4a-standard-2")
    ),
)
FROM = (CATALOG, Slo(), OPTIONS)
NAMES = [one.name for one in CATALOG.offerings]
FLEETS = st.dictionaries(st.sampled_from(NAMES), st.integers(min_value=1, max_value=9))


@pytest.fixture(scope="module")
def cheapest() -> dict[str, int]:
    return plan_demand(DEMAND, *FROM).fleet()


@given(FLEETS, FLEETS)
def test_changes_lead_from_one_fleet_to_the_other(
    before: dict[str, int], after: dict[str, int]
) -> None:
    changes = machine_changes(before, after, CATALOG)
    reached = {**before, **{one.offering: one.after for one in changes}}
    assert {name: n for name, n in reached.items() if n} == after
    assert all(before.get(one.offering, 0) == one.before != one.after for one in changes)
    assert machine_changes(after, after, CATALOG) == ()


def test_what_the_catalogue_does_not_know_has_no_price() -> None:
    (change,) = machine_changes({"old/r/gone/on_demand": 2}, {}, CATALOG)
    assert change.usd_per_hour is None
    assert change.delta_usd_per_hour is None


def test_the_cheapest_fleet_stays(cheapest: dict[str, int]) -> None:
    found = replanned(cheapest, DEMAND, FROM, 0.0)
    assert not found.change
    assert found.serves
    assert found.changes == ()
    assert found.saving_frac == pytest.approx(0.0, abs=1e-12)


def test_a_fleet_that_is_too_small_is_changed_whatever_it_costs(cheapest: dict[str, int]) -> None:
    name, count = max(cheapest.items(), key=lambda item: item[1])
    smaller = {**cheapest, name: count - 1}
    found = replanned({key: n for key, n in smaller.items() if n}, DEMAND, FROM, 10.0)
    assert found.serves is False
    assert found.change
    assert found.saving_frac < 0.0


def test_a_dearer_fleet_is_changed_only_where_that_saves_enough(cheapest: dict[str, int]) -> None:
    name, count = max(cheapest.items(), key=lambda item: item[1])
    larger = {**cheapest, name: count + 2}
    saving = replanned(larger, DEMAND, FROM, 0.0).saving_frac
    assert saving > 0.0
    assert replanned(larger, DEMAND, FROM, math.nextafter(saving, 0.0)).change
    stays = replanned(larger, DEMAND, FROM, saving)
    assert stays.serves
    assert not stays.change
    assert "must save over" in stays.reason


def test_without_a_fleet_in_force_the_plan_is_followed() -> None:
    found = replanned({}, DEMAND, FROM, 1.0)
    assert found.change
    assert found.serves is None
