"""What is the cheapest fleet on which a policy keeps its deadlines? Found by simulation."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step
from steelyard.domain.workload import Workload
from steelyard.fleet.view import FleetView
from steelyard.ledger.ledger import Ledger
from steelyard.placement.policy import Policy
from steelyard.sim import Conditions, recorded_rate_per_s, simulate

# Replicas of each pool, in the order of the pools.
Counts = tuple[int, ...]
# What the plan knows of a fleet of this many replicas: bid prices by pool.
Bids = Callable[[Counts], dict[str, float]]

_LARGEST_SCALE = 16.0
_RAY_STEPS = 6
_RATE_STEPS = 4


class _TooManyLateError(Exception):
    """Enough tasks are late for the aim to be out of reach; ends a simulation early."""


@dataclass(slots=True)
class _Watched:
    """A policy that gives up once more tasks are late than the aim allows."""

    policy: Policy
    most_late: int
    late: set[str]

    @property
    def name(self) -> str:
        return self.policy.name

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        if step.deadline_s is not None and view.now_s > step.deadline_s:
            self.late.add(step.task_id)
            if len(self.late) > self.most_late:
                raise _TooManyLateError
        return self.policy(step, view)


@dataclass(frozen=True, slots=True)
class SizingAim:
    """What must be kept, and on what.

    Attributes:
        workload: Tasks with deadlines and arrivals.
        pools: What can be rented; their numbers of replicas are not read.
        attainment_frac: Share of the tasks that must meet every SLO.
        most: Replicas of each pool that can be had at most.
        bids: Bid prices of a fleet.
        seed: Of the simulation.
        warm_up_frac: Share of the tasks, the first ones, that are not counted.
    """

    workload: Workload
    pools: tuple[PoolSpec, ...]
    attainment_frac: float
    most: Counts
    bids: Bids
    seed: int
    warm_up_frac: float = 0.1

    def usd_per_hour(self, counts: Counts) -> float:
        """What does a fleet cost?"""
        rents = zip(self.pools, counts, strict=True)
        return math.fsum(spec.usd_per_hour * count for spec, count in rents)


class SizedFleet(msgspec.Struct, frozen=True, kw_only=True):
    """The cheapest fleet found for a policy.

    Attributes:
        policy: The policy's name.
        counts: Replicas of each pool, in the order of the pools.
        usd_per_hour: Its price; infinite where no fleet kept the aim.
        attainment_frac: What it attained.
        probes: Simulations that were needed.
    """

    policy: str
    counts: Counts
    usd_per_hour: float
    attainment_frac: float
    probes: int


def attained_frac(policy: Policy, aim: SizingAim, counts: Counts) -> float:
    """Which share of the tasks does a policy serve in time on a fleet?

    Args:
        policy: The policy.
        aim: Workload, pools and what is wanted.
        counts: Replicas of each pool.

    Returns:
        The share; 0 as soon as the aim is out of reach.
    """
    pools = fleet_of(aim.pools, counts)
    tasks = len(aim.workload.tasks)
    skipped = {task.task_id for task in aim.workload.tasks[: int(aim.warm_up_frac * tasks)]}
    most_late = int((1.0 - aim.attainment_frac) * (tasks - len(skipped)))
    watched = _Watched(policy, most_late + len(skipped), set())
    conditions = Conditions(bids_usd_per_hour=aim.bids(counts))
    try:
        run = simulate(aim.workload, pools, watched, aim.seed, conditions)
    except _TooManyLateError:
        return 0.0
    counted = [task for task in Ledger.of(run.events).tasks if task.task_id not in skipped]
    return sum(task.met_slo for task in counted) / len(counted) if counted else 0.0


def fleet_of(pools: tuple[PoolSpec, ...], counts: Counts) -> tuple[PoolSpec, ...]:
    """The pools with these numbers of replicas; those with none are left out."""
    return tuple(
        msgspec.structs.replace(spec, replicas=count)
        for spec, count in zip(pools, counts, strict=True)
        if count > 0
    )


def highest_rate_per_s(
    policy: Policy, aim: SizingAim, counts: Counts, between_per_s: tuple[float, float]
) -> float:
    """At which rate of tasks does a policy still keep the aim on a fleet?

    The arrivals are stretched in time, so that bursts keep their shape; bisection to 2 % of the
    span. A higher rate is taken never to help.

    Args:
        policy: The policy.
        aim: What must be kept.
        counts: Replicas of each pool.
        between_per_s: A rate that is too low to be of interest, and the highest possible one.

    Returns:
        Tasks per second; 0 where the lower rate is too high already.
    """
    low, high = between_per_s
    if attained_frac(policy, at_rate(aim, low), counts) < aim.attainment_frac:
        return 0.0
    for _ in range(_RATE_STEPS):
        middle = (low + high) / 2.0
        if attained_frac(policy, at_rate(aim, middle), counts) >= aim.attainment_frac:
            low = middle
        else:
            high = middle
    return low


def at_rate(aim: SizingAim, rate_per_s: float) -> SizingAim:
    """The same aim with arrivals stretched to another mean rate."""
    factor = recorded_rate_per_s(aim.workload) / rate_per_s
    tasks = tuple(
        msgspec.structs.replace(task, arrival_s=task.arrival_s * factor)
        for task in aim.workload.tasks
    )
    return replace(aim, workload=msgspec.structs.replace(aim.workload, tasks=tasks))


def cheapest_fleet_for(
    policy: Policy, aim: SizingAim, mixes: tuple[tuple[float, ...], ...]
) -> SizedFleet:
    """What is the cheapest fleet on which a policy attains the aim?

    Each mix is a ray of fleets, searched by bisection on its scale, as far as it is cheaper than
    the best fleet so far; then replicas are taken away one by one, the dearest first, while the
    aim holds. More replicas are taken never to hurt, so the result is the cheapest of those tried.

    Args:
        policy: The policy.
        aim: What must be kept.
        mixes: Replicas of each pool, fractions allowed, at scale 1.

    Returns:
        The fleet; its price is infinite where no mix kept the aim at 16 times its size.
    """
    search = _Search(policy, aim)
    for mix in mixes:
        search.along(mix)
    search.prune()
    best = search.best
    return SizedFleet(
        policy=policy.name,
        counts=best or tuple(0 for _ in aim.pools),
        usd_per_hour=math.inf if best is None else aim.usd_per_hour(best),
        attainment_frac=search.seen[best] if best is not None else 0.0,
        probes=len(search.seen),
    )


class _Search:
    """Fleets that were tried, and the cheapest that kept the aim."""

    def __init__(self, policy: Policy, aim: SizingAim) -> None:
        self._policy = policy
        self._aim = aim
        self.seen: dict[Counts, float] = {}
        self.best: Counts | None = None

    def keeps(self, counts: Counts) -> bool:
        """Does the policy attain the aim on this fleet?"""
        if counts not in self.seen:
            self.seen[counts] = attained_frac(self._policy, self._aim, counts)
        kept = self.seen[counts] >= self._aim.attainment_frac
        if kept and (self.best is None or self._usd(counts) < self._usd(self.best)):
            self.best = counts
        return kept

    def along(self, mix: tuple[float, ...]) -> None:
        """Find the smallest scale of a mix that keeps the aim and beats the best so far."""
        high = self._highest(mix)
        if high is None:
            return
        low = 0.0
        for _ in range(_RAY_STEPS):
            middle = (low + high) / 2.0
            if self._at(mix, middle) == self._at(mix, high):
                high = middle
            elif self._at(mix, middle) == self._at(mix, low):
                low = middle
            elif self.keeps(self._at(mix, middle)):
                high = middle
            else:
                low = middle

    def _highest(self, mix: tuple[float, ...]) -> float | None:
        """A scale that keeps the aim, no dearer than the best so far; None if there is none."""
        if self.best is None:
            scale = 1.0
            while not self.keeps(self._at(mix, scale)):
                scale *= 1.5
                if scale > _LARGEST_SCALE:
                    return None
            return scale
        low, high = 0.0, _LARGEST_SCALE
        for _ in range(12):
            middle = (low + high) / 2.0
            cheaper = self._usd(self._at(mix, middle)) < self._usd(self.best)
            low, high = (middle, high) if cheaper else (low, middle)
        return low if low > 0.0 and self.keeps(self._at(mix, low)) else None

    def prune(self) -> None:
        """Take replicas away, the dearest first, as long as the aim is kept."""
        by_rent = sorted(range(len(self._aim.pools)), key=self._rent, reverse=True)
        shrunk = True
        while self.best is not None and shrunk:
            shrunk = False
            for pool in by_rent:
                if self.best[pool] > 0:
                    fewer = tuple(n - (at == pool) for at, n in enumerate(self.best))
                    shrunk = self.keeps(fewer) or shrunk

    def _rent(self, pool: int) -> tuple[float, int]:
        return (self._aim.pools[pool].usd_per_hour, pool)

    def _at(self, mix: tuple[float, ...], scale: float) -> Counts:
        return tuple(
            min(most, math.ceil(scale * part - 1e-9))
            for part, most in zip(mix, self._aim.most, strict=True)
        )

    def _usd(self, counts: Counts) -> float:
        return self._aim.usd_per_hour(counts)
