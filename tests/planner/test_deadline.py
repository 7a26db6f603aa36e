"""The time limit by a clock that jumps: no timing is asserted."""

import itertools
import math

import numpy as np
import pytest

from steelyard.planner.deadline import Deadline, TimeUp
from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.search import search
from steelyard.planner.search_limits import SearchLimits


def wide_demand(seed: int, rules: Constraints) -> Demand:
    """Too many shares to count as small."""
    rng = np.random.default_rng(seed)
    offers, buckets = 12, 240
    usd = rng.uniform(0.5, 3.0, offers)
    capacity = usd[:, None] * rng.uniform(5.0, 10.0, (offers, buckets))
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="abc"[o % 3], usd_per_hour=float(usd[o]))
            for o in range(offers)
        ),
        buckets=tuple(
            Bucket(name=f"b{b}", rate_per_s=float(rng.uniform(0.2, 1.0))) for b in range(buckets)
        ),
        capacity_per_s=tuple(tuple(float(c) for c in row) for row in capacity),
        constraints=rules,
    )


def test_between_the_limit_and_the_grace_only_what_runs_goes_on() -> None:
    ticks = iter([0.0, 9.0, 10.5, 10.5, 10.5, 11.5])
    deadline = Deadline(10.0, lambda: next(ticks))
    assert deadline.left_s() == 1.0
    assert deadline.left_s() == 0.0
    assert deadline.late()
    assert deadline.grace_s() == 0.5
    with pytest.raises(TimeUp):
        deadline.grace_s()


RULES = [
    Constraints(),
    Constraints(provider_share_cap=0.5),
    Constraints(survive_provider_loss_frac=0.8),
    Constraints(provider_share_cap=0.5, survive_provider_loss_frac=0.8),
]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("limit", [0, 1, 5, 20])
def test_work_stops_soon_after_the_limit_wherever_it_strikes(
    limit: int, rules: Constraints
) -> None:
    # Every program asks the clock before it runs, and every question costs a second: what is left
    # after the grace are the programs that a first fleet needs.
    readings = itertools.count()
    limits = SearchLimits(time_limit_s=float(limit), small_cells=0, gap_frac=1e-7)
    demand = wide_demand(0, rules)
    found = search(demand, limits, now=lambda: float(next(readings)))
    used = next(readings)
    assert found.stopped == "time"
    assert used <= 1.1 * limit + 12
    usd = math.fsum((found.machines * demand.prices()).tolist())
    assert usd == pytest.approx(found.usd_per_hour)
    assert 0.0 < found.lower_bound_usd_per_hour <= found.usd_per_hour
