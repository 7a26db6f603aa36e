"""How fast and how well does the planner solve? Random demands by seed, beside binary slices.

Run as `python benchmarks/planner.py [--seeds N] [--full] [--slices S] [--plain]`, or with
`--peers PYTHON [--limit-s S]` beside HiGHS and SCIP alone, by an interpreter that has them:

    python -m venv peers
    peers/bin/pip install highspy pyscipopt numpy
    python benchmarks/planner.py --peers peers/bin/python

The baseline
is the binary-slice formulation as in Mélange, written anew for HiGHS (planner.binary_slices), on
the same machine in the same run, with the same time limit.

`--over-time 1,10,60` asks for 200 x 400 with some 10, 50, 100, 300 and 1000 machines and prints the
gap under each of these limits, with `--peers` also that of HiGHS alone in the same run.

`--plain` adds the solver's own branch and bound on the complete program, same time limit.

Instances: prices exp(N(0, 1)) USD/h; capacity = 10 * price * exp(N(0, noise)) per cell, noise 0.5
(0.1: prices follow capacity closely, as on a market)
* exp(N(0, 0.2)) per offer; a fifth of the cells null; rates exp(N(0, 1)) scaled so that the fleet
is about `scale` USD/h; providers a, b, c in turn. Machines of very unequal prices and few of each
are the hard case for whole numbers.
"""

import argparse
import datetime as dt
import json
import math
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from steelyard.errors import PlanError
from steelyard.planner.binary_slices import plan_with_binary_slices
from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.exact import Ranges, solve_exactly
from steelyard.planner.master import Master
from steelyard.planner.search_limits import SearchLimits
from steelyard.planner.solve import solve

TIME_LIMIT_S = 10.0
SMALL = (
    (4, 60, 30.0),
    (10, 20, 10.0),
    (20, 40, 10.0),
    (40, 60, 10.0),
    (40, 60, 100.0),
    (40, 60, 1000.0),
    (200, 400, 100.0),
    (200, 400, 1000.0),
    (200, 400, 10000.0),
)
MARKET = ((40, 60, 1000.0), (200, 400, 1000.0), (200, 400, 10000.0))
PEER_CASES = (
    (10, 20, 10.0),
    (20, 40, 10.0),
    (40, 60, 10.0),
    (40, 60, 100.0),
    (200, 400, 10.0),
    (200, 400, 100.0),
    (200, 400, 300.0),
    (200, 400, 1000.0),
    (200, 400, 10000.0),
)
# Scales at which about 10, 50, 100, 300 and 1000 machines are bought.
OVER_TIME = tuple((200, 400, scale) for scale in (10.0, 120.0, 250.0, 950.0, 3300.0))
RULES = Constraints(provider_share_cap=0.5, survive_provider_loss_frac=0.8)


def random_demand(
    offers: int,
    buckets: int,
    scale: float,
    seed: int,
    constraints: Constraints,
    noise: float = 0.5,
) -> Demand:
    """One instance, as the module's docstring says."""
    rng = np.random.default_rng(seed)
    usd = np.exp(rng.normal(0.0, 1.0, offers))
    capacity = 10.0 * usd[:, None] * np.exp(rng.normal(0.0, noise, (offers, buckets)))
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


def plain_gap(demand: Demand) -> float:
    """The gap that the solver leaves on the complete program; infinity without a fleet."""
    most = np.full(len(demand.offers), np.inf)
    where = Ranges(least=np.zeros_like(most), most=most)
    found = solve_exactly(Master(demand), where, 1e-4, TIME_LIMIT_S)
    if found.machines is None or found.lower_bound_usd_per_hour <= 0.0:
        return math.inf
    return float(found.machines @ demand.prices()) / found.lower_bound_usd_per_hour - 1.0


def asked_peer(python: str, solver: str, demand: Demand, limit_s: float) -> tuple[float, ...]:
    """Cost, gap and CPU seconds of another solver on the complete program; infinity: no fleet."""
    program = Path(__file__).parent / "peers" / "planner_mip.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demand.json"
        path.write_bytes(msgspec.json.encode(demand))
        command = [python, str(program), solver, str(path), str(limit_s)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
    usd, bound_usd = found["usd_per_hour"], found["lower_bound_usd_per_hour"]
    if usd is None:
        return math.inf, math.inf, found["cpu_s"]
    return usd, usd / max(bound_usd, 1e-9) - 1.0, found["cpu_s"]


def peer(python: str, solver: str, demand: Demand, limit_s: float) -> str:
    """What another solver finds, as text."""
    usd, gap_frac, cpu_s = asked_peer(python, solver, demand, limit_s)
    cost = "no fleet" if math.isinf(usd) else f"{usd:.4f} gap {gap_frac:.4%}"
    return f"{solver} {cost} CPU {cpu_s:.1f} s"


def over_time(args: argparse.Namespace) -> None:
    """One line per number of machines and seed: the gap under every limit (CPU seconds)."""
    limits_s = [float(part) for part in args.over_time.split(",")]
    for case in OVER_TIME:
        for seed in range(args.seeds):
            demand = random_demand(*case, seed, Constraints())
            ours: list[str] = []
            theirs: list[str] = []
            machines = 0
            for limit_s in limits_s:
                started_s = time.process_time()
                found = solve(demand, SearchLimits(time_limit_s=limit_s, nodes=10_000))
                cpu_s = time.process_time() - started_s
                machines = sum(found.fleet.values())
                late = f", wall {found.solve_s:.1f}" if found.solve_s > limit_s else ""
                ours.append(f"{limit_s:g} s {found.gap_frac:.4%} ({cpu_s:.1f}{late})")
                if args.peers:
                    _, gap_frac, cpu_s = asked_peer(args.peers, "highs", demand, limit_s)
                    theirs.append(f"{limit_s:g} s {gap_frac:.4%} ({cpu_s:.1f})")
            print(
                f"{case[0]:4d} x {case[1]:4d} scale {case[2]:6.0f} seed {seed},"
                f" {machines:5d} machines: steelyard {' '.join(ours)}"
                + (f" | highs {' '.join(theirs)}" if theirs else ""),
                flush=True,
            )


def beside_peers(python: str, limit_s: float) -> None:
    """One line per number of machines: what others find and prove on the very same instance."""
    for case in PEER_CASES:
        demand = random_demand(*case, 0, Constraints())
        started_s = time.process_time()
        found = solve(demand, SearchLimits(time_limit_s=limit_s, nodes=10_000))
        cpu_s = time.process_time() - started_s
        others = [peer(python, solver, demand, limit_s) for solver in ("highs", "scip")]
        print(
            f"{case[0]:4d} x {case[1]:4d} scale {case[2]:6.0f}, {sum(found.fleet.values()):5d}"
            f" machines: steelyard {found.usd_per_hour:.4f} gap {found.gap_frac:.4%}"
            f" CPU {cpu_s:.1f} s | {' | '.join(others)}",
            flush=True,
        )


def measure(
    case: tuple[int, int, float],
    args: argparse.Namespace,
    rules: Constraints,
    noise: float = 0.5,
    gap_frac: float = 1e-4,
) -> None:
    """Print one line: medians over the seeds."""
    times: list[float] = []
    cpu_times: list[float] = []
    gaps: list[float] = []
    ratios: list[float] = []
    plain: list[float] = []
    for seed in range(args.seeds):
        demand = random_demand(*case, seed, rules, noise)
        started_s = time.process_time()
        limits = SearchLimits(gap_frac=gap_frac, time_limit_s=TIME_LIMIT_S, nodes=10_000)
        found = solve(demand, limits)
        cpu_times.append(time.process_time() - started_s)
        times.append(found.solve_s)
        gaps.append(found.gap_frac)
        if args.slices and rules == Constraints() and case[0] < 1000:
            usd = sliced_usd(demand, args.slices)
            ratios.append(math.inf if usd is None else usd / found.usd_per_hour)
        if args.plain:
            plain.append(plain_gap(demand))
    line = (
        f"{case[0]:5d} x {case[1]:5d}  scale {case[2]:6.0f}  noise {noise:.1f}"
        f"  asked {gap_frac:.2%}  solve_s {statistics.median(times):6.2f} (max {max(times):.2f};"
        f" CPU {statistics.median(cpu_times):.2f})"
        f"  gap {statistics.median(gaps):.4%} (max {max(gaps):.4%})"
    )
    if ratios:
        dearer = sum(ratio < 1.0 - 1e-9 for ratio in ratios)
        line += f"  dearer than binary slices in {dearer} of {len(ratios)}"
        line += f"  binary slices / ours {statistics.median(ratios):.4f} (min {min(ratios):.4f})"
    if plain:
        line += f"  plain gap {statistics.median(plain):.4%}"
    print(line, flush=True)


def main() -> None:
    """Run the cases and print where and when."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=4, help="slices per bucket; 0 for none")
    parser.add_argument("--full", action="store_true", help="1000 x 1000 and constraints, too")
    parser.add_argument("--plain", action="store_true", help="the solver's own search beside it")
    parser.add_argument("--peers", metavar="PYTHON", help="compare with HiGHS and SCIP only")
    parser.add_argument("--limit-s", type=float, default=120.0, help="limit of each, with --peers")
    parser.add_argument("--over-time", metavar="LIMITS", help="limits in seconds, like 1,10,60")
    args = parser.parse_args()
    today = dt.datetime.now(tz=dt.UTC).date()
    print(f"{platform.machine()} {platform.python_version()} {today}, seeds 0..{args.seeds - 1},")
    if args.over_time:
        print("gap under each time limit (CPU seconds), asked for 0.01 %, one thread")
        over_time(args)
        return
    if args.peers:
        print(f"seed 0 only, time limit {args.limit_s} s for each solver, one thread")
        beside_peers(args.peers, args.limit_s)
        return
    print(f"time limit {TIME_LIMIT_S} s for each solver, one thread; binary slices: {args.slices}")
    for case in SMALL:
        measure(case, args, Constraints())
    for case in MARKET:
        measure(case, args, Constraints(), 0.1)
    if args.full:
        measure((1000, 1000, 10000.0), args, Constraints(), gap_frac=5e-4)
        print(
            f"with provider_share_cap {RULES.provider_share_cap} and loss frac "
            f"{RULES.survive_provider_loss_frac}:"
        )
        measure((40, 60, 1000.0), args, RULES)
        measure((200, 400, 10000.0), args, RULES, gap_frac=1e-3)


if __name__ == "__main__":
    main()
