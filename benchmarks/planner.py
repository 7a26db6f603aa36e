"""How fast and how well does the planner solve? Random demands by seed, beside binary slices.

Run as `python benchmarks/planner.py [--seeds N] [--full] [--slices S]`. The baseline is the
binary-slice formulation as in Mélange, written anew for HiGHS (planner.binary_slices), on the same
machine in the same run, with the same time limit.

Instances: prices exp(N(0, 1)) USD/h; capacity = 10 * price * exp(N(0, 0.5)) per cell
* exp(N(0, 0.2)) per offer; a fifth of the cells null; rates exp(N(0, 1)) scaled so that the fleet
is about `scale` USD/h; providers a, b, c in turn. Machines of very unequal prices and few of each
are the hard case for whole numbers.
"""

import argparse
import datetime as dt
import platform
import statistics

import numpy as np

from steelyard.errors import PlanError
from steelyard.planner.binary_slices import plan_with_binary_slices
from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.search import SearchLimits
from steelyard.planner.solve import solve

TIME_LIMIT_S = 10.0
SMALL = ((4, 60, 30.0), (40, 60, 100.0), (40, 60, 1000.0), (200, 400, 1000.0), (200, 400, 10000.0))
RULES = Constraints(provider_share_cap=0.5, survive_provider_loss_frac=0.8)


def random_demand(
    offers: int, buckets: int, scale: float, seed: int, constraints: Constraints
) -> Demand:
    """One instance, as the module's docstring says."""
    rng = np.random.default_rng(seed)
    usd = np.exp(rng.normal(0.0, 1.0, offers))
    capacity = 10.0 * usd[:, None] * np.exp(rng.normal(0.0, 0.5, (offers, buckets)))
    capacity *= np.exp(rng.normal(0.0, 0.2, offers))[:, None]
    able = rng.random((offers, buckets)) >= 0.2
    able[:2] = True
    rates = np.exp(rng.normal(0.0, 1.0, buckets))
    rates *= 10.0 * scale / rates.sum()
    return Demand(
        offers=tuple(
            Offer(name=f"o{o}", provider="abc"[o % 3], usd_per_hour=float(usd[o]))
            for o in range(offers)
        ),
        buckets=tuple(Bucket(name=f"b{b}", rate_per_s=float(rates[b])) for b in range(buckets)),
        capacity_per_s=tuple(
            tuple(float(c) if ok else None for c, ok in zip(row, row_able, strict=True))
            for row, row_able in zip(capacity, able, strict=True)
        ),
        constraints=constraints,
    )


def sliced_usd(demand: Demand, slices: int) -> float | None:
    """What the baseline pays; None when it found no fleet in time."""
    try:
        return plan_with_binary_slices(demand, slices, TIME_LIMIT_S).usd_per_hour
    except PlanError:
        return None


def measure(case: tuple[int, int, float], seeds: int, slices: int, rules: Constraints) -> None:
    """Print one line: medians over the seeds."""
    offers, buckets, scale = case
    times: list[float] = []
    gaps: list[float] = []
    ratios: list[float] = []
    for seed in range(seeds):
        demand = random_demand(offers, buckets, scale, seed, rules)
        found = solve(demand, SearchLimits(time_limit_s=TIME_LIMIT_S))
        times.append(found.solve_s)
        gaps.append(found.gap_frac)
        if slices and rules == Constraints():
            usd = sliced_usd(demand, slices)
            ratios.append(float("inf") if usd is None else usd / found.usd_per_hour)
    line = (
        f"{offers:5d} x {buckets:5d}  scale {scale:8.0f}  solve_s {statistics.median(times):7.2f}"
        f" (max {max(times):.2f})  gap {statistics.median(gaps):.5%} (max {max(gaps):.5%})"
    )
    if ratios:
        line += f"  binary slices / ours {statistics.median(ratios):.4f} (min {min(ratios):.4f})"
    print(line, flush=True)


def main() -> None:
    """Run the cases and print where and when."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=4, help="slices per bucket; 0 for none")
    parser.add_argument("--full", action="store_true", help="1000 x 1000 and constraints, too")
    args = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    print(f"{platform.machine()} {platform.python_version()} {today}, seeds 0..{args.seeds - 1},")
    print(f"time limit {TIME_LIMIT_S} s for each solver, one thread; binary slices: {args.slices}")
    for case in SMALL:
        measure(case, args.seeds, args.slices, Constraints())
    if args.full:
        measure((1000, 1000, 10000.0), args.seeds, 0, Constraints())
        print(
            f"with provider_share_cap {RULES.provider_share_cap} and loss frac "
            f"{RULES.survive_provider_loss_frac}:"
        )
        measure((40, 60, 1000.0), args.seeds, 0, RULES)
        measure((200, 400, 10000.0), args.seeds, 0, RULES)


if __name__ == "__main__":
    main()
