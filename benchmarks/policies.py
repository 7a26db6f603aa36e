"""What does a task cost under each policy, when 99 % of the tasks must meet their deadline?

Run as `python benchmarks/policies.py --traces FOLDER`, with the folder of the trace files; needs
the extra `fast`.

Open market: each policy gets the fleet, out of several mixes of the same price, on which a task
costs it least: the rate of tasks is raised (arrivals stretched, so that bursts keep their shape)
until less than 99 % of the deadlines are met, and the fleet's rent is shared by the tasks at that
rate. Scarce GPUs: a few GPUs are had, tasks come faster than they could serve, and each policy
gets the fewest Arm and x86 machines beside them, up to eight times the bound's, with which it keeps
the deadlines.

The bound is the cheapest fleet of the same offerings that is never idle, never waits and never
forgets a prefix (`steelyard.planner.bounds`). Nothing can cost less, so no policy can be further
below the best baseline than the bound is; where that is less than 30 %, the table says so. The
bound takes arrivals to be spread evenly; `crowding` tells how many more tasks are in flight at the
worst moments than in the mean. A second bound (`steelyard.planner.bursts`) leaves the arrivals
where they are, at the rate that our policy served: what a fleet of fixed size must do between any
two moments, if the one task in a hundred that may fail is chosen with hindsight. It takes streams
to run as fast as if they were alone and batches to be full at once, so it is low where deadlines
bind. What keeps a policy from the bound is told as three factors: `mix`, what its fleet would cost
never idle, over the bound; `work`, what it computed, over the least (prefixes computed anew, steps
on machines that are dear for them); `idle`, what was rented, over what was computed at full
batches.

A trace's calls are taken to be of one model, so that the catalogue has curves for them, and a
task's deadline is 5 s plus STRETCH times its tools, people (at most 60 s each) and model calls at
20 ms per output token and 0.1 ms per prompt token that is not repeated. Streams at once are limited
by the memory that prompts of the trace's 75th percentile need.

`--scale N` has N times the tasks at N times the rate, on fleets of N times the price or GPUs: N
stretches of the recorded arrivals at once or, `--compressed`, one that is played faster.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime as dt
import math
import os
import platform
import time
from pathlib import Path

from policy_cases.contest import (
    Contest,
    Result,
    Worth,
    aim_of,
    best_of,
    crowding,
    open_market,
    scarce_market,
    with_bursts,
)
from policy_cases.market import describe, market
from policy_cases.workloads import Scale, each_once, workload_of

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.placement.baselines import policy_names
from steelyard.planner.bounds import CostBound, cost_bound
from steelyard.planner.trials import Trials


@dataclasses.dataclass(frozen=True)
class Case:
    """A trace, what serves it, and how hard it is.

    Attributes:
        name: By which it is chosen.
        trace: The trace's name.
        model: What its calls are taken to ask for.
        tasks: How many arrive.
        usd_per_hour: Price of the fleets, about; of scarce GPUs, nothing.
        stretch: Of the deadlines.
        gpus: Parts of names of the GPUs on offer; all where empty.
        scarce: How many there are of each, where they are scarce; else nothing.
        load: Rate of tasks over what the scarce GPUs could serve at best.
    """

    name: str
    trace: str
    model: str
    tasks: int
    usd_per_hour: float
    stretch: float = 1.2
    gpus: tuple[str, ...] = ()
    scarce: int = 0
    load: float = 0.0


CASES = (
    Case("coding-agent", "coding-agent", "llama-3.1-8b", 1500, 30.0),
    Case("tau-bench", "tau-bench", "llama-3.1-8b", 3000, 15.0),
    Case("local-model", "local-model", "llama-3.1-8b", 1200, 22.0),
    Case("local-model-a100", "local-model", "llama-3.1-8b", 1200, 15.0, 2.0, ("NC24ads",)),
    Case("tau-bench-scarce", "tau-bench", "qwen2.5-0.5b", 2000, 0.0, 3.0, ("g2-standard",), 1, 1.3),
)


def main() -> None:
    """Print a table per case and a summary of all."""
    given = _arguments()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{dt.datetime.now(dt.UTC).date()}, seed {given.seed}"
    )
    catalog = load_catalog()
    started_s = time.process_time()
    summary: list[str] = []
    for case in CASES:
        if given.only and case.name not in given.only.split(","):
            continue
        for arrivals in given.arrivals.split(","):
            summary += [
                compare(given, catalog, case, (arrivals, half)) for half in given.half.split(",")
            ]
    print("\nSummary: ratios of cost per task.")
    print("\n".join(summary))
    print(f"{time.process_time() - started_s:.0f} s of CPU time, without those of other processes")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of the trace files")
    parser.add_argument("--only", default="", help=", ".join(case.name for case in CASES))
    parser.add_argument("--arrivals", default="azure,servegen")
    parser.add_argument("--policies", default="", help="names, comma-separated; all if left out")
    parser.add_argument("--half", default="tuned,held-out")
    parser.add_argument("--tasks", type=int, default=0, help="tasks drawn; 0 for the case's own")
    parser.add_argument("--budget", type=float, default=0.0, help="price of the fleets, USD/h")
    parser.add_argument("--stretch", type=float, default=0.0, help="0 for the case's own")
    parser.add_argument("--load", type=float, default=0.0, help="of scarce GPUs; 0 for 1.3")
    parser.add_argument("--scale", type=int, default=1, help="times the tasks, rate and fleet")
    parser.add_argument("--compressed", action="store_true", help="scale by playing one stretch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def compare(given: argparse.Namespace, catalog: Catalog, case: Case, drawn: tuple[str, str]) -> str:
    """Print one case; returns its line of the summary."""
    arrivals, half = drawn
    stretch = given.stretch or case.stretch
    tasks = given.tasks or case.tasks
    drawn_as = (case.model, stretch, tasks, given.seed)
    scale = Scale(given.scale, not given.compressed)
    workload = workload_of(given.traces, case.trace, arrivals, half, drawn_as, scale)
    kinds = workload if scale.times == 1 else each_once(workload)
    worth = Worth(kinds, market(catalog, kinds, case.model, case.gpus))
    trials = Trials.of(aim_of(workload, worth, given.seed))
    bound = cost_bound(kinds, worth.pools, 1.0)
    if case.scarce:
        gpus = {s.name: given.scale * case.scarce for s in worth.pools if s.hardware == "gpu"}
        contest, bound = scarce_market(trials, worth, gpus, given.load or case.load)
    else:
        contest = open_market(trials, worth, given.scale * (given.budget or case.usd_per_hour))
    steps = sum(len(task.steps) for task in workload.tasks)
    print(
        f"\n{case.name}, {arrivals} arrivals, {half} half: {case.model}, {len(workload.tasks)} "
        f"tasks, {steps} steps, deadlines 5 s + {stretch:g} x work; bound "
        f"{1000.0 * bound.usd_per_task:.3f} USD/1,000 tasks on "
        f"{', '.join(f'{n:.2f} {p}' for p, n in bound.replicas.items() if n > 1e-6)}"
    )
    for spec in worth.pools:
        for curve in spec.llm_curves.values():
            print(f"  {spec.name}: {spec.usd_per_hour:.3f} USD/h, {curve.concurrency_cap} streams")
    names = tuple(given.policies.split(",")) if given.policies else policy_names()
    results = run_all(contest, names, given.jobs)
    show(results, contest, bound)
    ours = _of(results, policy_names()[0])
    crowd, bursts = math.nan, math.nan
    if ours.trial is not None:
        skipped = int(trials.aim.warm_up_frac * len(workload.tasks))
        crowd = crowding(workload, ours.trial.rate_per_s, stretch, skipped)
        bursts = with_bursts(workload, worth, ours.trial.rate_per_s, skipped) / bound.usd_per_task
    label = f"{case.name}, {arrivals}, {half}"
    line = summary_line(label, results, bound, (crowd, bursts))
    print(line, flush=True)
    return line


def run_all(contest: Contest, names: tuple[str, ...], jobs: int) -> list[Result]:
    """Every policy on its best fleet."""
    work = [(name, contest) for name in names]
    if jobs == 1:
        return [best_of(job) for job in work]
    with concurrent.futures.ProcessPoolExecutor(jobs) as workers:
        return list(workers.map(best_of, work))


def show(results: list[Result], contest: Contest, bound: CostBound) -> None:
    """Print a line per policy, the cheapest first."""
    best = _best_baseline(results).usd_per_task
    print("    USD/1,000  over bound  over best baseline   mix  work  idle  tasks/s  policy, fleet")
    for one in sorted(results, key=lambda one: (one.usd_per_task, one.policy)):
        if one.trial is None:
            print(f"            -  no fleet tried keeps 99 % of the deadlines  {one.policy}")
            continue
        over = one.usd_per_task / bound.usd_per_task
        mix, work, idle = factors(one, contest, bound)
        print(
            f"  {1000.0 * one.usd_per_task:11.3f}  {over:10.3f}  {one.usd_per_task / best:18.3f}"
            f"  {mix:5.2f} {work:5.2f} {idle:5.2f}  {one.trial.rate_per_s:7.3f}  {one.policy}: "
            f"{describe(contest.worth.pools, one.counts)} ({one.took_s:.0f} s CPU)",
            flush=True,
        )


def factors(one: Result, contest: Contest, bound: CostBound) -> tuple[float, float, float]:
    """What keeps a result from the bound: the fleet, the work, the idle time; their product."""
    if one.trial is None:
        return (math.nan, math.nan, math.nan)
    over = one.usd_per_task / bound.usd_per_task
    mix = contest.worth.fluid_usd(one.counts) / bound.usd_per_task
    idle = 1.0 / max(one.trial.busy_frac, 1e-9)
    return (mix, over / mix / idle, idle)


def _of(results: list[Result], policy: str) -> Result:
    return next((one for one in results if one.policy == policy), Result(policy))


def _best_baseline(results: list[Result]) -> Result:
    rivals = [one for one in results if one.policy != policy_names()[0]]
    return min(rivals, key=lambda one: (one.usd_per_task, one.policy), default=Result("none"))


def summary_line(
    label: str, results: list[Result], bound: CostBound, bursty: tuple[float, float]
) -> str:
    """Ours, the best baseline, and what was possible."""
    best = _best_baseline(results)
    ours = _of(results, policy_names()[0])
    crowd, bursts = bursty
    possible = max(1.0, bursts) * bound.usd_per_task / best.usd_per_task
    verdict = (
        "30 % below it is possible"
        if possible <= 0.7
        else (f"at most {100.0 * (1.0 - possible):.0f} % below it is possible")
    )
    return (
        f"  {label:36s} ours {ours.usd_per_task / bound.usd_per_task:6.3f} of the bound, "
        f"{ours.usd_per_task / best.usd_per_task:6.3f} of {best.policy}, which is "
        f"{best.usd_per_task / bound.usd_per_task:6.3f} of the bound; crowding "
        f"{crowd:.2f}; with bursts the bound is {bursts:.3f} as high, ours "
        f"{ours.usd_per_task / bound.usd_per_task / max(1.0, bursts):.3f} of the higher one; "
        f"{verdict}"
    )


if __name__ == "__main__":
    main()
