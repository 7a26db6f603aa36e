"""Cuts against every whole fleet of a small box: none that can serve may be cut off."""

import itertools

import numpy as np
import pytest

from steelyard.planner.cuts import violated_cuts
from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.gomory import gomory_cuts
from steelyard.planner.master import INFINITY, Master

RULES = [
    Constraints(),
    Constraints(survive_provider_loss_frac=0.6),
    Constraints(provider_share_cap=0.7, survive_provider_loss_frac=0.5),
]


def small_demand(seed: int, rules: Constraints) -> Demand:
    rng = np.random.default_rng(seed)
    usd = rng.uniform(0.5, 2.0, 3)
    capacity = usd[:, None] * rng.uniform(0.5, 2.0, (3, 6))
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="ab"[o % 2], usd_per_hour=float(usd[o])) for o in range(3)
        ),
        buckets=tuple(
            Bucket(name=f"b{b}", rate_per_s=float(rng.uniform(0.2, 1.0))) for b in range(6)
        ),
        capacity_per_s=tuple(tuple(float(c) for c in row) for row in capacity),
        constraints=rules,
    )


def served(master: Master) -> list[bool]:
    """For every fleet of at most 4 of each: does the program with its cuts accept it?"""
    answers: list[bool] = []
    for fleet in itertools.product(range(5), repeat=3):
        for o, n in enumerate(fleet):
            master.bound_machines(o, n, n)
        answers.append(master.solve())
    for o in range(3):
        master.bound_machines(o, 0.0, INFINITY)
    return answers


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_cuts_remove_no_fleet_that_can_serve(seed: int, rules: Constraints) -> None:
    master = Master(small_demand(seed, rules))
    before = served(master)
    assert master.solve()
    relaxed_usd = master.objective_usd_per_hour
    added = 0
    for _ in range(6):
        cuts = [*violated_cuts(master), *gomory_cuts(master, 10)]
        added += len(cuts)
        for cut in cuts:
            master.add_cut(cut)
        assert master.solve()
    assert added > 0
    assert master.objective_usd_per_hour > relaxed_usd
    assert served(master) == before


def test_shares_priced_in_later_carry_their_cut_coefficients() -> None:
    master = Master(small_demand(1, RULES[1]))
    assert master.solve()
    for cut in [*violated_cuts(master), *gomory_cuts(master, 10)]:
        master.add_cut(cut)
    assert master.solve()
    usd = master.objective_usd_per_hour
    master.trim(0.0)
    assert master.solve()
    assert master.objective_usd_per_hour == pytest.approx(usd, rel=1e-7)
    master.add_columns_of(np.ones(len(master.usd_per_hour), dtype=np.bool_))
    assert master.solve()
    assert master.objective_usd_per_hour == pytest.approx(usd, rel=1e-7)
