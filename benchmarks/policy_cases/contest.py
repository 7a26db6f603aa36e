"""On which fleet, of some, does a task cost each policy least?"""

import dataclasses
import math
import time

import msgspec
import numpy as np
from policy_cases.market import mixes_of

from steelyard.domain.pool import PoolSpec
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.domain.workload import Workload
from steelyard.errors import InfeasiblePlanError
from steelyard.planner.bounds import CostBound, cost_bound, fleet_bound
from steelyard.planner.bursts import burst_bound
from steelyard.planner.sizing import Counts, SizingAim, fleet_of
from steelyard.planner.trials import Trial, Trials

ATTAINMENT_FRAC = 0.99
_HALVINGS = 8
# Rates below this share of what the fleet could serve at best are of no interest.
_LOWEST_SHARE = 0.08
_MOST_FLEETS = 4
# A fleet that is dearer by half even when never idle is not worth the simulation.
_DEAREST = 1.5
# Of machines beside scarce ones: up to so many times what the bound rents.
_LARGEST_GROWTH = 8.0


@dataclasses.dataclass(frozen=True)
class Result:
    """The cheapest way to run a case under a policy.

    Attributes:
        policy: Its name.
        usd_per_task: Rent per task; infinite where no fleet kept the deadlines.
        counts: Replicas of each pool.
        trial: What it did there.
        took_s: CPU time of the search.
    """

    policy: str
    usd_per_task: float = math.inf
    counts: Counts = ()
    trial: Trial | None = None
    took_s: float = 0.0


@dataclasses.dataclass
class Worth:
    """Bid prices of fleets, and the most that each could serve; solved once each."""

    workload: Workload
    pools: tuple[PoolSpec, ...]
    known: dict[Counts, CostBound] = dataclasses.field(default_factory=dict)

    def __call__(self, counts: Counts) -> dict[str, float]:
        """Bid prices of a fleet."""
        return self.bound(counts).bid_usd_per_hour

    def bound(self, counts: Counts) -> CostBound:
        """The bound of a fleet in these proportions, at one task per second."""
        if counts not in self.known:
            self.known[counts] = fleet_bound(self.workload, fleet_of(self.pools, counts), 1.0)
        return self.known[counts]

    def fluid_usd(self, counts: Counts) -> float:
        """Rent per task if the fleet were never idle, never waited and forgot no prefix."""
        return self.bound(counts).usd_per_task

    def most_per_s(self, counts: Counts) -> float:
        """Tasks per second that it could serve at best."""
        rents = zip(self.pools, counts, strict=True)
        rent = math.fsum(spec.usd_per_hour * count for spec, count in rents)
        return rent / self.bound(counts).usd_per_hour


@dataclasses.dataclass(frozen=True)
class Contest:
    """What policies are compared on.

    Attributes:
        trials: The workload, laid out.
        worth: What fleets could serve at best.
        fleets: Fleets whose rate is raised; or, with `rate_per_s`, mixes of which more are rented.
        rate_per_s: Rate of tasks that machines are added for; None raises the rate instead.
        fixed: Scarce replicas, which are rented whatever the mix.
    """

    trials: Trials
    worth: Worth
    fleets: tuple[tuple[float, ...], ...]
    rate_per_s: float | None = None
    fixed: Counts = ()


def open_market(trials: Trials, worth: Worth, usd_per_hour: float) -> Contest:
    """Fleets of about one price, of everything on offer."""
    fleets: list[Counts] = []
    for counts in mixes_of(worth.pools, worth.workload, usd_per_hour):
        try:
            worth.bound(counts)
        except InfeasiblePlanError:
            continue
        fleets.append(counts)
    fleets.sort(key=worth.fluid_usd)
    least = worth.fluid_usd(fleets[0])
    fleets = [one for one in fleets if worth.fluid_usd(one) < _DEAREST * least]
    return Contest(trials, worth, tuple(fleets[:_MOST_FLEETS]))


def scarce_market(
    trials: Trials, worth: Worth, gpus: dict[str, int], load: float
) -> tuple[Contest, CostBound]:
    """A few GPUs that are had anyway, and CPUs beside them for what the GPUs cannot do.

    Args:
        trials: The workload, laid out.
        worth: What fleets could serve at best.
        gpus: Replicas of the pools with GPUs by name.
        load: Rate of tasks over the rate that the GPUs could serve at best.

    Returns:
        The contest, and the bound at its rate.
    """
    pools = worth.pools
    fixed = tuple(gpus.get(spec.name, 0) for spec in pools)
    alone = tuple(
        count or int(not spec.llm_curves) * 50 for spec, count in zip(pools, fixed, strict=True)
    )
    served = fleet_of(pools, alone)
    bound = fleet_bound(worth.workload, served, 1.0)
    rent = math.fsum(spec.usd_per_hour * spec.replicas for spec in served)
    rate_per_s = load * rent / bound.usd_per_hour
    most = {spec.name: gpus.get(spec.name, 0) for spec in pools if spec.hardware == "gpu"}
    whole = cost_bound(worth.workload, pools, rate_per_s, most=most)
    mixes: list[tuple[float, ...]] = []
    for allowed in ({"arm", "x86"}, {"arm"}, {"x86"}):
        some = tuple(
            s for s in pools if s.hardware == "gpu" or not s.llm_curves or s.hardware in allowed
        )
        try:
            found = cost_bound(worth.workload, some, rate_per_s, most=most)
        except InfeasiblePlanError:
            continue
        mixes.append(
            tuple(
                0.0 if spec.hardware == "gpu" else found.replicas.get(spec.name, 0.0)
                for spec in pools
            )
        )
    # CPUs that the bound leaves out are tried beside those that it takes.
    return Contest(trials, worth, tuple(dict.fromkeys(mixes)), rate_per_s, fixed), whole


def crowding(workload: Workload, rate_per_s: float, stretch: float, skipped: int) -> float:
    """How much fuller is the fleet for those who come at the worst moments than in the mean?

    Tasks in flight, were each to take just the time that its deadline is made of: the 99th
    percentile of what the counted tasks find on arrival, over the mean over time. Where tasks can
    wait for a fraction of their length only, a fixed fleet must be that much larger than its mean
    load, whatever the policy; `cost_bound` does not know it.
    """
    tasks = sorted(workload.tasks, key=lambda task: task.arrival_s)
    arrival_s = np.array([task.arrival_s for task in tasks])
    arrival_s *= (len(tasks) - 1) / (arrival_s[-1] - arrival_s[0]) / rate_per_s
    length_s = np.array([((task.deadline_after_s or 5.0) - 5.0) / stretch for task in tasks])
    ends_s = np.sort(arrival_s + length_s)
    found = np.arange(1, len(tasks) + 1) - np.searchsorted(ends_s, arrival_s, side="right")
    counted = arrival_s[skipped:]
    first_s, last_s = counted[0], counted[-1]
    present_s = np.minimum(arrival_s + length_s, last_s) - np.maximum(arrival_s, first_s)
    mean = float(np.maximum(present_s, 0.0).sum() / (last_s - first_s))
    return float(np.quantile(found[skipped:], ATTAINMENT_FRAC)) / mean


def with_bursts(workload: Workload, worth: Worth, rate_per_s: float, skipped: int) -> float:
    """What does a task cost at the least on a fleet of fixed size, arrivals as they are?

    Models by the bound on bursts, tools by the share of the even bound that is theirs.
    """
    first_s = workload.tasks[0].arrival_s
    last_s = workload.tasks[-1].arrival_s
    faster = (last_s - first_s) / (len(workload.tasks) - 1) * rate_per_s
    tasks = tuple(
        msgspec.structs.replace(task, arrival_s=(task.arrival_s - first_s) / faster)
        for task in workload.tasks
    )
    stretched = msgspec.structs.replace(workload, tasks=tasks)
    bound = burst_bound(stretched, worth.pools, ATTAINMENT_FRAC, not_counted=skipped)
    even = cost_bound(worth.workload, worth.pools, rate_per_s)
    tools = (spec for spec in worth.pools if not spec.llm_curves)
    tools_usd = math.fsum(spec.usd_per_hour * even.replicas[spec.name] for spec in tools)
    return (bound.usd_per_hour + tools_usd) / SECONDS_PER_HOUR / rate_per_s


def best_of(job: tuple[str, Contest]) -> Result:
    """On which fleet does a task cost the policy least?"""
    name, contest = job
    started_s = time.process_time()
    found = _by_rate(name, contest) if contest.rate_per_s is None else _by_growth(name, contest)
    return dataclasses.replace(found, took_s=time.process_time() - started_s)


def _by_rate(name: str, contest: Contest) -> Result:
    best = Result(name)
    for fleet in contest.fleets:
        counts = tuple(int(count) for count in fleet)
        most_per_s = contest.worth.most_per_s(counts)
        usd_per_s = contest.trials.aim.usd_per_hour(counts) / SECONDS_PER_HOUR
        least_per_s = max(_LOWEST_SHARE * most_per_s, 1.02 * usd_per_s / best.usd_per_task)
        if least_per_s >= most_per_s:
            continue
        trial = contest.trials.highest_rate(name, counts, (least_per_s, most_per_s), _HALVINGS)
        if trial is not None:
            best = Result(name, usd_per_s / trial.rate_per_s, counts, trial)
    return best


def _by_growth(name: str, contest: Contest) -> Result:
    best = Result(name)
    rate_per_s = contest.rate_per_s or 0.0
    for mix in contest.fleets:
        low, high = 0.0, _LARGEST_GROWTH
        seen: dict[Counts, Trial] = {}
        for _ in range(_HALVINGS + 2):
            scale = high if not seen else (low + high) / 2.0
            counts = _grown(contest, mix, scale)
            usd_per_task = contest.trials.aim.usd_per_hour(counts) / SECONDS_PER_HOUR / rate_per_s
            if counts not in seen:
                seen[counts] = contest.trials.at(name, counts, rate_per_s)
            kept = seen[counts].attained_frac >= ATTAINMENT_FRAC
            if kept and usd_per_task < best.usd_per_task:
                best = Result(name, usd_per_task, counts, seen[counts])
            if kept:
                high = scale
            elif scale == high:
                break
            else:
                low = scale
    return best


def _grown(contest: Contest, mix: tuple[float, ...], scale: float) -> Counts:
    """The scarce machines with so many times the mix; tools have twice the room they need."""
    counts: list[int] = []
    for spec, part, had in zip(contest.worth.pools, mix, contest.fixed, strict=True):
        more = (
            max(1, math.ceil(2.0 * part - 1e-9))
            if not spec.llm_curves
            else math.ceil(scale * part - 1e-9)
        )
        counts.append(had + more)
    return tuple(counts)


def aim_of(workload: Workload, worth: Worth, seed: int) -> SizingAim:
    """What every policy must keep."""
    return SizingAim(
        workload=workload,
        pools=worth.pools,
        attainment_frac=ATTAINMENT_FRAC,
        most=tuple(10_000 for _ in worth.pools),
        bids=worth,
        seed=seed,
        warm_up_frac=0.2,
    )
