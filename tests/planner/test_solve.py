"""Small problems against exhaustive enumeration, which shares no code with the planner."""

import itertools
import math
from typing import Any

import highspy
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.errors import InfeasiblePlanError
from steelyard.planner.binary_slices import plan_with_binary_slices
from steelyard.planner.conflicts import binding_rules
from steelyard.planner.demand import Bucket, Constraints, Demand, FloatArray, Offer
from steelyard.planner.search_limits import SearchLimits
from steelyard.planner.solve import Solution, solve

# Without the backstop in wall seconds, which busy and emulated machines reach: what it cuts short
# differs by machine.
EXACT = SearchLimits(gap_frac=1e-9, time_limit_s=math.inf)
UNHURRIED = SearchLimits(time_limit_s=math.inf)
RULES = [
    Constraints(),
    Constraints(provider_share_cap=0.6),
    Constraints(survive_provider_loss_frac=0.5),
    Constraints(provider_share_cap=0.7, survive_provider_loss_frac=0.8),
    Constraints(survive_region_loss_frac=0.7),
    Constraints(spot_share_cap=0.3),
    Constraints(survive_provider_loss_frac=0.4, survive_region_loss_frac=0.9, spot_share_cap=0.5),
]


def random_demand(seed: int, offers: int, buckets: int, constraints: Constraints) -> Demand:
    """Offers of two providers with prices of 0.5 to 3, a tenth of the cells impossible."""
    rng = np.random.default_rng(seed)
    usd = rng.uniform(0.5, 3.0, offers)
    capacity = usd[:, None] * rng.uniform(0.5, 2.0, (offers, buckets))
    able = rng.random((offers, buckets)) > 0.1
    able[:2] = True
    return Demand(
        offers=tuple(
            Offer(
                name=f"o{o}",
                provider=("aws", "gcp")[o % 2],
                region=f"r{o // 2 % 2}",
                spot=o % 3 == 1,
                usd_per_hour=float(usd[o]),
            )
            for o in range(offers)
        ),
        buckets=tuple(
            Bucket(name=f"b{b}", rate_per_s=float(rng.uniform(0.2, 2.0))) for b in range(buckets)
        ),
        capacity_per_s=tuple(
            tuple(float(c) if ok else None for c, ok in zip(row, row_ok, strict=True))
            for row, row_ok in zip(capacity, able, strict=True)
        ),
        constraints=constraints,
    )


def servable_frac(load: FloatArray, machines: tuple[int, ...]) -> float:
    """Largest g for which the machines serve g times every bucket: a plain linear program."""
    offers, buckets = load.shape
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    growth = solver.addVariable(lb=0.0, ub=1e6)
    cell = {
        (o, b): solver.addVariable(lb=0.0)
        for o in range(offers)
        for b in range(buckets)
        if math.isfinite(load[o, b])
    }
    for b in range(buckets):
        solver.addConstr(sum(v for (_, k), v in cell.items() if k == b) - growth == 0)
    for o in range(offers):
        used = [float(load[o, b]) * v for (k, b), v in cell.items() if k == o]
        if used:
            solver.addConstr(sum(used) <= machines[o])
    solver.maximize(growth)
    return float(solver.val(growth))


def keeps_rules(demand: Demand, machines: tuple[int, ...]) -> bool:
    """Does this fleet serve the demand and keep caps and provider loss?"""
    load, usd = demand.load(), demand.prices()
    if servable_frac(load, machines) < 1.0 - 1e-9:
        return False
    rules = demand.constraints
    total = float(np.array(machines) @ usd)
    names = np.array([o.provider for o in demand.offers])
    for provider in sorted(set(names.tolist())):
        mine = names == provider
        share = float((np.array(machines) * usd)[mine].sum())
        if rules.provider_share_cap and share > rules.provider_share_cap * total + 1e-9:
            return False
        if rules.survive_provider_loss_frac:
            left = tuple(0 if gone else n for n, gone in zip(machines, mine, strict=True))
            if servable_frac(load, left) < rules.survive_provider_loss_frac - 1e-9:
                return False
    return keeps_region_and_spot_rules(demand, machines)


def keeps_region_and_spot_rules(demand: Demand, machines: tuple[int, ...]) -> bool:
    """Can what is left without a region, and without all spot machines, serve its part?"""
    rules, load = demand.constraints, demand.load()
    places = [(o.provider, o.region) for o in demand.offers]
    for place in sorted(set(places)) if rules.survive_region_loss_frac else []:
        left = tuple(0 if p == place else n for n, p in zip(machines, places, strict=True))
        if servable_frac(load, left) < (rules.survive_region_loss_frac or 0.0) - 1e-9:
            return False
    if rules.spot_share_cap is None:
        return True
    steady = tuple(0 if o.spot else n for n, o in zip(machines, demand.offers, strict=True))
    return servable_frac(load, steady) >= 1.0 - rules.spot_share_cap - 1e-9


def cheapest_by_enumeration(demand: Demand, at_most_usd: float) -> float:
    """The least cost of any fleet not dearer than `at_most_usd`, by trying all of them."""
    usd = demand.prices()
    ranges = [range(int(at_most_usd / price + 1e-9) + 1) for price in usd]
    fleets = sorted(
        (float(np.array(fleet) @ usd), fleet)
        for fleet in itertools.product(*ranges)
        if float(np.array(fleet) @ usd) <= at_most_usd + 1e-9
    )
    return next((cost for cost, fleet in fleets if keeps_rules(demand, fleet)), math.inf)


def machines(demand: Demand, found: Solution) -> tuple[int, ...]:
    return tuple(found.fleet.get(o.name, 0) for o in demand.offers)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_finds_what_exhaustive_enumeration_finds(seed: int, rules: Constraints) -> None:
    demand = random_demand(seed, 3, 3, rules)
    found = solve(demand, EXACT)
    assert keeps_rules(demand, machines(demand, found))
    assert found.usd_per_hour == pytest.approx(
        cheapest_by_enumeration(demand, found.usd_per_hour), rel=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    offers=st.integers(2, 6),
    buckets=st.integers(1, 8),
    rules=st.sampled_from(RULES),
)
def test_every_plan_serves_all_and_proves_its_cost(
    seed: int, offers: int, buckets: int, rules: Constraints
) -> None:
    demand = random_demand(seed, offers, buckets, rules)
    found = solve(demand)
    counts = np.array(machines(demand, found))
    shares, load = np.array(found.shares), demand.load()
    used = np.where(shares > 0.0, shares * np.where(np.isfinite(load), load, 0.0), 0.0)
    assert np.isfinite(load[shares > 0.0]).all()
    assert shares.sum(axis=0) == pytest.approx(1.0)
    assert (used.sum(axis=1) <= counts + 1e-6).all()
    assert keeps_rules(demand, tuple(counts.tolist()))
    assert found.closed_form_usd_per_hour <= found.relaxed_usd_per_hour * (1 + 1e-9)
    assert found.relaxed_usd_per_hour <= found.lower_bound_usd_per_hour * (1 + 1e-6)
    assert found.lower_bound_usd_per_hour <= found.usd_per_hour
    assert found.growth >= 1.0 - 1e-6


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_is_never_dearer_than_binary_slices(seed: int) -> None:
    demand = random_demand(seed, 3, 4, Constraints())
    sliced = plan_with_binary_slices(demand, slices=2, time_limit_s=5.0)
    assert solve(demand, EXACT).usd_per_hour <= sliced.usd_per_hour * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_more_offer_never_makes_the_plan_dearer(seed: int) -> None:
    demand = random_demand(seed, 4, 5, Constraints())
    fewer = msgspec.structs.replace(
        demand, offers=demand.offers[:3], capacity_per_s=demand.capacity_per_s[:3]
    )
    assert solve(demand, EXACT).usd_per_hour <= solve(fewer, EXACT).usd_per_hour * (1 + 1e-9)


def test_the_same_demand_gives_the_same_plan_byte_for_byte() -> None:
    demand = random_demand(5, 12, 20, Constraints(provider_share_cap=0.6))
    one, two = (msgspec.structs.replace(solve(demand, UNHURRIED), solve_s=0.0) for _ in range(2))
    assert msgspec.json.encode(one) == msgspec.json.encode(two)


def single(stock: int | None = None) -> Demand:
    return Demand(
        offers=(Offer(name="arm", provider="aws", usd_per_hour=0.5, stock=stock),),
        buckets=(
            Bucket(name="chat", rate_per_s=3.0),
            Bucket(name="idle", rate_per_s=0.0),
        ),
        capacity_per_s=((2.0, None),),
    )


def test_a_machine_splits_its_time_and_idle_buckets_cost_nothing() -> None:
    found = solve(single())
    assert found.fleet == {"arm": 2}
    assert found.shares == ((1.0, 0.0),)
    assert found.growth == pytest.approx(4.0 / 3.0)


def test_bids_at_full_load_add_up_to_the_rent() -> None:
    demand = random_demand(7, 5, 6, Constraints())
    found = solve(demand)
    earned = math.fsum(found.bid_usd_per_hour[name] * n for name, n in found.fleet.items())
    assert earned == pytest.approx(found.usd_per_hour)
    assert math.fsum(found.bucket_usd_per_hour) * found.growth == pytest.approx(
        found.usd_per_hour, rel=1e-6
    )


@pytest.mark.parametrize("small_cells", [2500, 0])
@pytest.mark.parametrize("rate_per_s", [1e-5, 1e-8, 1e-12])
def test_a_bucket_that_uses_almost_nothing_still_gets_a_machine(
    rate_per_s: float, small_cells: int
) -> None:
    demand = Demand(
        offers=(
            Offer(name="arm", provider="aws", usd_per_hour=1.0),
            Offer(name="gpu", provider="gcp", usd_per_hour=3.0),
            Offer(name="gpu2", provider="gcp", usd_per_hour=4.0),
        ),
        buckets=(
            Bucket(name="chat", rate_per_s=4.5),
            Bucket(name="rare", rate_per_s=rate_per_s),
        ),
        capacity_per_s=((2.0, None), (1.0, 1.0), (1.0, 3.0)),
    )
    found = solve(demand, SearchLimits(small_cells=small_cells))
    assert found.fleet == {"arm": 2, "gpu": 1}
    assert found.gap_frac <= 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rules=st.sampled_from(RULES))
def test_tiny_buckets_beside_large_ones_are_always_served(seed: int, rules: Constraints) -> None:
    demand = random_demand(seed, 5, 6, rules)
    rng = np.random.default_rng(seed)
    tiny = tuple(
        msgspec.structs.replace(b, rate_per_s=b.rate_per_s * 10.0 ** -float(rng.uniform(3, 11)))
        if rng.random() < 0.5
        else b
        for b in demand.buckets
    )
    demand = msgspec.structs.replace(demand, buckets=tiny)
    found = solve(demand)
    assert found.growth >= 1.0 - 1e-6
    assert found.lower_bound_usd_per_hour <= found.usd_per_hour


def test_too_little_stock_is_named() -> None:
    with pytest.raises(InfeasiblePlanError, match="stock"):
        solve(single(stock=1))


def test_no_demand_needs_no_fleet() -> None:
    nothing = msgspec.structs.replace(
        single(), buckets=(Bucket(name="a", rate_per_s=0.0), Bucket(name="b", rate_per_s=0.0))
    )
    assert solve(nothing).usd_per_hour == 0.0


def test_a_plan_comes_out_even_when_there_is_no_time() -> None:
    demand = random_demand(3, 40, 60, Constraints())
    found = solve(demand, SearchLimits(time_limit_s=0.0))
    assert found.stopped == "time"
    # How near it comes is a matter of the machine: the solver has a tenth of a second of wall time
    # at the least, in which a busy or emulated one gets nowhere. Rounding up costs each offer once.
    once_usd = math.fsum(offer.usd_per_hour for offer in demand.offers)
    assert found.usd_per_hour <= found.closed_form_usd_per_hour + once_usd
    assert keeps_rules(demand, machines(demand, found))


def test_a_known_fleet_that_is_cheaper_than_what_the_search_found_is_taken() -> None:
    demand = random_demand(3, 12, 8, Constraints())
    best = solve(demand, EXACT)
    hasty = solve(demand, SearchLimits(gap_frac=10.0))
    told = solve(demand, SearchLimits(gap_frac=10.0), best.fleet)
    assert told.usd_per_hour <= min(hasty.usd_per_hour, best.usd_per_hour * (1.0 + 1e-9))
    assert told.lower_bound_usd_per_hour <= best.usd_per_hour * (1.0 + 1e-9)
    for bucket in range(len(demand.buckets)):
        assert math.fsum(row[bucket] for row in told.shares) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "value"), [("survive_region_loss_frac", 0.9), ("spot_share_cap", 0.2)]
)
def test_a_loss_rule_that_stock_contradicts_is_named_with_it(rule: str, value: float) -> None:
    rules = Constraints(**{rule: value})
    demand = Demand(
        offers=(
            Offer(name="a", provider="p", region="east", usd_per_hour=1.0, stock=1),
            Offer(name="b", provider="p", region="west", usd_per_hour=0.5, spot=True),
        ),
        buckets=(Bucket(name="chat", rate_per_s=4.0),),
        capacity_per_s=((2.0,), (2.0,)),
        constraints=rules,
    )
    with pytest.raises(InfeasiblePlanError, match=f"{rule} {value} with stock.*of {rule}, stock"):
        solve(demand)


def test_rules_that_bind_are_named_with_their_cost_and_others_are_not() -> None:
    demand = random_demand(3, 4, 4, Constraints())
    assert binding_rules(demand) == ()
    loose = msgspec.structs.replace(demand, constraints=Constraints(provider_share_cap=1.0))
    assert binding_rules(loose) == ()
    ruled = msgspec.structs.replace(
        demand, constraints=Constraints(survive_provider_loss_frac=1.0, provider_share_cap=1.0)
    )
    (found,) = binding_rules(ruled)
    assert found.rule == "survive_provider_loss_frac 1.0"
    relaxed = [solve(one, EXACT).relaxed_usd_per_hour for one in (demand, ruled)]
    assert found.usd_per_hour == pytest.approx(relaxed[1] - relaxed[0])
