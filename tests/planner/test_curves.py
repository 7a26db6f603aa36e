"""Plans over latencies and over the hours of a day."""

import math

import msgspec
import pytest
from tests.planner.test_load_curve import DEMAND, ignore

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.planner.day import assumed_day, plan_day
from steelyard.planner.latency_front import cost_over_latency
from steelyard.planner.plan import PlanOptions, plan_demand


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    full = load_catalog()
    names = ("aws/m9g.xlarge", "gcp/g2-standard-4", "azure/Standard_F4als_v7", "aws/g6e.xlarge")
    return msgspec.structs.replace(full, offerings=tuple(full.offering(name) for name in names))


def test_the_best_plans_get_cheaper_as_they_get_slower(catalog: Catalog) -> None:
    front = cost_over_latency(DEMAND, (catalog, Slo(), PlanOptions()), ignore)
    best = [one for one in front.points if one.best]
    assert len(best) >= 2
    costs = [one.usd_per_1000_tasks for one in best]
    assert costs == sorted(costs, reverse=True)
    for point in front.points:
        beaten = any(
            other.task_s <= point.task_s
            and other.usd_per_1000_tasks <= point.usd_per_1000_tasks * (1 + 1e-4)
            for other in best
        )
        assert beaten
        assert math.fsum(point.rent_frac.values()) == pytest.approx(1.0)


def test_each_hour_has_the_plan_of_its_own_load(catalog: Catalog) -> None:
    planned_from = (catalog, Slo(), PlanOptions())
    day = plan_day(DEMAND, planned_from, (), ignore)
    assert day.assumed
    assert tuple(one.load_frac for one in day.hours) == assumed_day()
    plan = plan_demand(DEMAND, catalog, Slo(), PlanOptions(with_baselines=False))
    assert day.hours[15].fleet == plan.fleet()
    assert day.held_usd_per_day == pytest.approx(24.0 * plan.usd_per_hour)
    assert day.usd_per_day == pytest.approx(math.fsum(one.usd_per_hour for one in day.hours))
    assert day.saved_frac == pytest.approx(1.0 - day.usd_per_day / day.held_usd_per_day)
    assert 0.0 <= day.saved_frac < 1.0


def test_an_even_day_saves_nothing(catalog: Catalog) -> None:
    day = plan_day(DEMAND, (catalog, Slo(), PlanOptions()), (1.0,) * 24, ignore)
    assert (day.assumed, day.saved_frac) == (False, 0.0)
