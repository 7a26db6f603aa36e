"""The search for large problems against the solver's own, which sees every column at once."""

import math

import numpy as np
import pytest

from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.exact import Ranges, solve_exactly
from steelyard.planner.master import Master
from steelyard.planner.nearby import Neighbourhood, nearby_fleet, rounded
from steelyard.planner.search import search
from steelyard.planner.search_limits import SearchLimits


def wide_demand(seed: int, stock: int | None, rules: Constraints) -> Demand:
    """Few offers and so many buckets that the problem does not count as small."""
    rng = np.random.default_rng(seed)
    offers, buckets = 6, 270
    usd = rng.uniform(0.5, 3.0, offers)
    capacity = usd[:, None] * rng.uniform(5.0, 10.0, (offers, buckets))
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="abc"[o % 3], usd_per_hour=float(usd[o]), stock=stock)
            for o in range(offers)
        ),
        buckets=tuple(
            Bucket(name=f"b{b}", rate_per_s=float(rng.uniform(0.2, 1.0))) for b in range(buckets)
        ),
        capacity_per_s=tuple(tuple(float(c) for c in row) for row in capacity),
        constraints=rules,
    )


@pytest.mark.parametrize(
    ("seed", "stock", "rules"),
    [
        (0, None, Constraints()),
        (1, 4, Constraints()),
        (2, None, Constraints(provider_share_cap=0.5)),
    ],
)
def test_search_and_complete_program_agree(
    seed: int, stock: int | None, rules: Constraints
) -> None:
    demand = wide_demand(seed, stock, rules)
    master = Master(demand)
    found = search(demand, SearchLimits(gap_frac=5e-3, small_cells=0))
    most = np.full(len(demand.offers), math.inf if stock is None else stock)
    exact = solve_exactly(master, Ranges(least=np.zeros_like(most), most=most), 5e-3, 20.0)
    assert exact.machines is not None
    exact_usd = math.fsum((exact.machines * demand.prices()).tolist())
    assert found.lower_bound_usd_per_hour <= exact_usd * (1 + 1e-7)
    assert exact.lower_bound_usd_per_hour <= found.usd_per_hour * (1 + 1e-7)
    if found.stopped == "gap":
        assert found.usd_per_hour <= exact_usd * (1 + 5.001e-3)
    assert stock is None or (found.machines <= stock).all()


def test_the_neighbourhood_holds_only_fleets_that_can_serve() -> None:
    master = Master(wide_demand(0, None, Constraints(provider_share_cap=0.5)))
    assert master.solve()
    least, most = rounded(master, 1)
    where = Neighbourhood(
        least=least,
        most=most,
        near_usd=1.0,
        target_usd=0.0,
        gap_frac=1e-3,
        nodes=10,
        time_limit_s=20.0,
    )
    fleet = nearby_fleet(master, math.inf, where)
    assert fleet is not None
    assert (np.abs(fleet - master.machines) < 2.0).all()
    assert master.keeps_caps(fleet)
    for o, n in enumerate(fleet.tolist()):
        master.bound_machines(o, n, n)
    assert master.solve()
