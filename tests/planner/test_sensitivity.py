import itertools
import math

import msgspec
import pytest
from tests.planner.test_load_curve import DEMAND
from tests.planner.test_solve import servable_frac

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.planner.demand import Demand
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_demand, planning_problem
from steelyard.planner.plan_checks import Sensitivity
from steelyard.planner.sensitivity import sensitivity

OPTIONS = PlanOptions(with_baselines=False)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    full = load_catalog()
    names = ("aws/m9g.xlarge", "azure/Standard_F4als_v7", "gcp/n4a-standard-2")
    return msgspec.structs.replace(full, offerings=tuple(full.offering(name) for name in names))


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> FleetPlan:
    return plan_demand(DEMAND, catalog, Slo(), OPTIONS)


@pytest.fixture(scope="module")
def found(plan: FleetPlan, catalog: Catalog) -> Sensitivity:
    told: list[tuple[int, int]] = []
    result = sensitivity(plan, DEMAND, catalog, lambda done, total: told.append((done, total)))
    assert told == [(n, len(plan.machines) + 5) for n in range(1, len(plan.machines) + 6)]
    return result


def cheapest_usd(plain: Demand, offering: str, factor: float, at_most_usd: float) -> float:
    """By trying every fleet with one price multiplied."""
    usd = [o.usd_per_hour * (factor if o.name == offering else 1.0) for o in plain.offers]
    ranges = [range(int(at_most_usd / price) + 2) for price in usd]
    costs = sorted(
        (math.fsum(n * price for n, price in zip(fleet, usd, strict=True)), fleet)
        for fleet in itertools.product(*ranges)
    )
    return next(cost for cost, fleet in costs if servable_frac(plain.load(), fleet) >= 1.0 - 1e-9)


def test_price_ranges_are_those_of_trying_every_fleet(
    plan: FleetPlan, catalog: Catalog, found: Sensitivity
) -> None:
    plain = planning_problem(DEMAND, catalog, Slo(), OPTIONS).plain
    fleet = plan.fleet()
    assert {one.offering for one in found.prices} == set(fleet)
    for one in found.prices:
        for factor, stands in (
            (1.0 - one.keeps_down_frac, True),
            (1.0 + one.keeps_up_frac, True),
            (None if one.leaves_down_frac is None else 1.0 - one.leaves_down_frac, False),
            (None if one.leaves_up_frac is None else 1.0 + one.leaves_up_frac, False),
        ):
            if factor is None:
                continue
            usd = math.fsum(
                fleet.get(o.name, 0) * o.usd_per_hour * (factor if o.name == one.offering else 1.0)
                for o in plain.offers
            )
            best = cheapest_usd(plain, one.offering, factor, usd)
            assert (usd <= best * (1 + 1.01e-4)) == stands


def test_other_loads_and_cached_shares_are_planned_anew(
    plan: FleetPlan, found: Sensitivity
) -> None:
    usd = {case.change: case.usd_per_hour for case in found.cases}
    assert list(usd) == [
        "load x 0.5",
        "load x 2",
        "load x 10",
        "cached share of prompts -10 points",
        "cached share of prompts +10 points",
    ]
    costs = [cost or math.inf for cost in usd.values()]
    assert costs[0] <= plan.usd_per_hour <= costs[1] <= costs[2]
    assert costs[4] <= plan.usd_per_hour <= costs[3]
