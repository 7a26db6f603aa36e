"""Lagrangian ranges against enumeration, and money spent on nothing under a provider cap."""

import itertools
import math

import highspy
import numpy as np
import pytest

from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.dominance import undominated
from steelyard.planner.master import Master
from steelyard.planner.ranges import Relaxation
from steelyard.planner.search_limits import SearchLimits
from steelyard.planner.solve import solve

MOST = 4


def demand_of(seed: int, rules: Constraints) -> Demand:
    rng = np.random.default_rng(seed)
    offers, buckets = 4, 3
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="ab"[o % 2], usd_per_hour=float(rng.uniform(0.5, 3.0)))
            for o in range(offers)
        ),
        buckets=tuple(
            Bucket(name=f"b{b}", rate_per_s=float(rng.uniform(0.5, 2.0))) for b in range(buckets)
        ),
        capacity_per_s=tuple(
            tuple(float(c) for c in row) for row in rng.uniform(1.0, 4.0, (offers, buckets))
        ),
        constraints=rules,
    )


def served(master: Master, fleet: tuple[int, ...]) -> bool:
    for o, n in enumerate(fleet):
        master.bound_machines(o, float(n), float(n))
    return master.solve() and master.keeps_caps(np.array(fleet, dtype=float))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "rules",
    [
        Constraints(),
        Constraints(provider_share_cap=0.6),
        Constraints(provider_share_cap=0.7, survive_provider_loss_frac=0.5),
    ],
)
def test_no_fleet_inside_a_budget_lies_outside_its_ranges(seed: int, rules: Constraints) -> None:
    demand = demand_of(seed, rules)
    master = Master(demand)
    assert master.solve()
    stock = np.full(4, highspy.kHighsInf)
    relaxation = Relaxation(master, stock)
    assert relaxation.bound_usd_per_hour == pytest.approx(master.objective_usd_per_hour)
    usd = demand.prices()
    budgets = [relaxation.bound_usd_per_hour * factor for factor in (1.05, 1.2, 1.5)]
    ranges = [relaxation.ranges(budget) for budget in budgets]
    for fleet in itertools.product(range(MOST), repeat=4):
        cost = math.fsum(n * float(c) for n, c in zip(fleet, usd, strict=True))
        if cost > budgets[-1] or not served(master, fleet):
            continue
        assert cost >= relaxation.bound_usd_per_hour * (1 - 1e-7)
        for budget, (least, most) in zip(budgets, ranges, strict=True):
            if cost <= budget:
                assert (least <= fleet).all()
                assert (most >= fleet).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("small_cells", [0, 20, 2500])
def test_offers_left_out_under_a_cap_leave_the_bound_valid(seed: int, small_cells: int) -> None:
    # 24 cells, 12 without the worse offers: 0 searches, 20 leaves offers out, 2500 keeps all.
    rules = Constraints(provider_share_cap=0.6)
    demand = demand_of(seed, rules)
    rng = np.random.default_rng(seed)
    worse = tuple(
        Offer(name=f"w{o}", provider=offer.provider, usd_per_hour=offer.usd_per_hour * float(f))
        for (o, offer), f in zip(enumerate(demand.offers), rng.uniform(1.0, 1.2, 4), strict=True)
    )
    both = Demand(
        offers=demand.offers + worse,
        buckets=demand.buckets,
        capacity_per_s=demand.capacity_per_s * 2,
        constraints=rules,
    )
    assert set(undominated(both)) <= {0, 1, 2, 3}
    found = solve(both, SearchLimits(small_cells=small_cells))
    master = Master(both)
    usd = both.prices()
    best = math.inf
    for few in itertools.combinations_with_replacement(range(9), 4):
        fleet = np.bincount([o for o in few if o < 8], minlength=8)
        cost = math.fsum((fleet * usd).tolist())
        if cost < best and served(master, tuple(fleet.tolist())):
            best = cost
    assert found.lower_bound_usd_per_hour <= best * (1 + 1e-7)
    assert sum(found.fleet.values()) > 4 or found.usd_per_hour <= best * (1 + found.gap_frac + 1e-7)
