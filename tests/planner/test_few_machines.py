"""Prices, tree and first fleets against the complete program on small problems."""

import itertools
import math

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.planner.ascent import Box, Climb, Offers, ascend
from steelyard.planner.deadline import Deadline
from steelyard.planner.demand import Bucket, Demand, Offer
from steelyard.planner.dual_tree import Question, cheapest_in_box
from steelyard.planner.few_machines import Few
from steelyard.planner.master import Master
from steelyard.planner.ranges import Relaxation
from steelyard.planner.routing import serves
from steelyard.planner.search import search
from steelyard.planner.search_limits import SearchLimits

CLIMB = Climb(steps=200, step=1.0, patience=10)


def few_demand(seed: int, offers: int, buckets: int, stock: int | None = None) -> Demand:
    """A few machines of unequal prices; a fifth of the cells impossible."""
    rng = np.random.default_rng(seed)
    usd = np.exp(rng.normal(0.0, 1.0, offers))
    capacity = 10.0 * usd[:, None] * np.exp(rng.normal(0.0, 0.5, (offers, buckets)))
    able = rng.random((offers, buckets)) >= 0.2
    able[:2] = True
    rates = np.exp(rng.normal(0.0, 1.0, buckets))
    rates *= 40.0 / rates.sum()
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="a", usd_per_hour=float(usd[o]), stock=stock)
            for o in range(offers)
        ),
        buckets=tuple(Bucket(name=f"b{b}", rate_per_s=float(rates[b])) for b in range(buckets)),
        capacity_per_s=tuple(
            tuple(float(c) if ok else None for c, ok in zip(row, row_ok, strict=True))
            for row, row_ok in zip(capacity, able, strict=True)
        ),
    )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(1, 2))
def test_the_tree_finds_what_trying_every_fleet_finds(seed: int, most: int) -> None:
    demand = few_demand(seed, 4, 6)
    loads, usd = demand.load(), demand.prices()
    fleets = [np.array(f, dtype=float) for f in itertools.product(range(most + 1), repeat=4)]
    costs = [float(f @ usd) for f in fleets if serves(loads[None], f, usd)]
    best_usd = min(costs, default=math.inf)
    box = Box(np.zeros(4), np.full(4, float(most)))
    below_usd = float(most * usd.sum()) * 1.01
    start = np.ones(6)
    peak = ascend(Offers(loads, usd), start, box, CLIMB)
    assert peak.bound_usd <= best_usd * (1 + 1e-9)
    found = cheapest_in_box(
        Question(
            loads=loads,
            usd_per_hour=usd,
            box=box,
            worth_usd=peak.worth_usd,
            below_usd=below_usd,
            gap_frac=1e-9,
            known=False,
            nodes=10_000,
        ),
        lambda: False,
    )
    assert found.finished
    if found.machines is None:
        assert math.isinf(best_usd)
        return
    assert math.isclose(float(found.machines @ usd), best_usd, rel_tol=1e-9)
    assert found.lower_bound_usd <= best_usd * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), stock=st.sampled_from([None, 3]))
def test_with_and_without_the_complete_program_the_same_cost_is_proven(
    seed: int, stock: int | None
) -> None:
    demand = few_demand(seed, 6, 12, stock)
    exact = search(demand, SearchLimits(gap_frac=1e-6))
    few = search(demand, SearchLimits(gap_frac=1e-6, small_cells=0))
    assert few.stopped == "gap"
    assert math.isclose(few.usd_per_hour, exact.usd_per_hour, rel_tol=1e-5)
    assert few.lower_bound_usd_per_hour <= exact.usd_per_hour * (1 + 1e-9)
    assert stock is None or (few.machines <= stock).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_climb_ends_at_the_bound_that_the_relaxation_computes_by_itself(seed: int) -> None:
    demand = few_demand(seed, 6, 12)
    master = Master(demand)
    assert master.solve()
    stock = np.full(6, math.inf)
    start = master.lagrangian_prices()[0][0]
    box = Box(np.zeros(6), np.full(6, 1e6))
    peak = ascend(Offers(demand.load(), demand.prices()), start, box, CLIMB)
    relaxation = Relaxation(master, stock, peak.worth_usd[None])
    assert math.isclose(relaxation.bound_usd_per_hour, peak.bound_usd, rel_tol=1e-9)
    assert peak.bound_usd >= master.objective_usd_per_hour * (1 - 1e-9)


def test_the_first_fleet_serves_and_cannot_spare_a_machine() -> None:
    demand = few_demand(3, 8, 30)
    master = Master(demand)
    assert master.solve()
    few = Few(master, np.full(8, math.inf), Deadline(60.0))
    few.build()
    assert few.best is not None
    assert serves(master.loads, few.best, demand.prices())
    for o in np.flatnonzero(few.best > 0.5):
        fewer = few.best.copy()
        fewer[o] -= 1.0
        assert not serves(master.loads, fewer, demand.prices())


def test_the_same_demand_gives_the_same_fleet_by_the_tree() -> None:
    demand = few_demand(5, 10, 20)
    limits = SearchLimits(small_cells=0)
    one, two = search(demand, limits), search(demand, limits)
    assert (one.machines == two.machines).all()
    assert one.lower_bound_usd_per_hour == two.lower_bound_usd_per_hour
    assert one.nodes == two.nodes
    assert msgspec.structs.asdict(one)["stopped"] == "gap"


def test_a_proof_counts_although_multiplying_it_back_rounds_below_the_cost() -> None:
    demand, gap_frac = few_demand(0, 6, 12), 0.032
    best_usd = search(demand, SearchLimits(gap_frac=1e-7, small_cells=0)).usd_per_hour
    assert best_usd / (1.0 + gap_frac) * (1.0 + gap_frac) < best_usd
    found = search(demand, SearchLimits(gap_frac=gap_frac, small_cells=0, time_limit_s=5.0))
    assert found.stopped == "gap"
