"""At which rate of tasks does a policy still keep its deadlines? Many trials, compiled.

The counterpart of `planner.sizing` for workloads that are too large for the reference simulator.
"""

import dataclasses
import math

import msgspec
import numpy as np

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.planner.sizing import Counts, SizingAim, fleet_of
from steelyard.sim import Conditions, recorded_rate_per_s
from steelyard.sim.compiled.simulate import Span, simulate_compiled
from steelyard.sim.compiled.tables import Sample, task_tables

# Figures are kept per part of the time in which tasks arrive.
_PARTS = 20
_SHORTEST_S = 1e-6


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy did on a fleet at a rate.

    Attributes:
        rate_per_s: Tasks per second.
        attained_frac: Share of the counted tasks that succeeded by their deadline.
        busy_frac: Share of the rent of pools of models that was used, at full batches.
        cached_frac: Share of prompt tokens that were found in a cache.
    """

    rate_per_s: float
    attained_frac: float
    busy_frac: float
    cached_frac: float


@dataclasses.dataclass(frozen=True, slots=True)
class Trials:
    """One workload on many fleets at many rates.

    Attributes:
        aim: Workload, pools and what is wanted.
        sample: The workload laid out once for all trials.
        recorded_per_s: Its rate of tasks.
        compiled: Whether Numba compiles the simulator; otherwise Python runs it.
    """

    aim: SizingAim
    sample: Sample
    recorded_per_s: float
    compiled: bool = True

    @classmethod
    def of(cls, aim: SizingAim, *, compiled: bool = True) -> "Trials":
        """Lay the workload of an aim out.

        Args:
            aim: What must be kept.
            compiled: Whether Numba compiles the simulator.

        Returns:
            The trials.

        Raises:
            WorkloadError: The compiled simulator does not know such a workload.
        """
        sample = Sample.of(aim.workload)
        tables = task_tables(sample, Conditions())
        return cls(
            aim=aim,
            sample=dataclasses.replace(sample, tables=tables),
            recorded_per_s=recorded_rate_per_s(aim.workload),
            compiled=compiled,
        )

    def at(self, policy: str, counts: Counts, rate_per_s: float) -> Trial:
        """What does a policy do on a fleet at a rate?

        Args:
            policy: Name of the policy.
            counts: Replicas of each pool.
            rate_per_s: Tasks per second; the arrivals are stretched in time, so that bursts keep
                their shape.

        Returns:
            The trial; the first tasks count for nothing, as the aim has it.

        Raises:
            ConfigError: Numba is missing, or the compiled simulator does not know the policy.
        """
        arrival_s = self.sample.arrival_s * (self.recorded_per_s / rate_per_s)
        sample = dataclasses.replace(self.sample, arrival_s=arrival_s)
        pools = fleet_of(self.aim.pools, counts)
        conditions = Conditions(bids_usd_per_hour=self.aim.bids(counts))
        part_s = max(float(arrival_s[-1]) / _PARTS, _SHORTEST_S)
        span = Span(windows=_PARTS + 1, window_s=part_s, compiled=self.compiled)
        run = simulate_compiled(sample, pools, policy, self.aim.seed, conditions, (span, None))
        allowed_s = np.array([one.deadline_after_s or math.inf for one in sample.tasks])
        met = run.success_s <= arrival_s + allowed_s[sample.drawn]
        counted = met[int(self.aim.warm_up_frac * len(met)) :]
        models = [at for at, spec in enumerate(pools) if spec.llm_curves]
        # From the end of the warm-up to the last arrival, for which the fleet is in use.
        first = math.ceil(self.aim.warm_up_frac * _PARTS)
        flow = run.flow[first:_PARTS, models]
        rent_usd = math.fsum(pools[at].usd_per_hour * pools[at].replicas for at in models)
        rented_usd = rent_usd * part_s * (_PARTS - first) / SECONDS_PER_HOUR
        return Trial(
            rate_per_s=rate_per_s,
            attained_frac=float(np.mean(counted)) if len(counted) else 0.0,
            busy_frac=float(flow["cost_usd"].sum()) / rented_usd if rented_usd > 0.0 else 0.0,
            cached_frac=float(flow["cached_tokens"].sum() / max(1.0, flow["input_tokens"].sum())),
        )

    def highest_rate(
        self, policy: str, counts: Counts, between_per_s: tuple[float, float], steps: int
    ) -> Trial | None:
        """At which rate of tasks does a policy still keep the aim on a fleet?

        Bisection on the logarithm of the rate. A higher rate is taken never to help.

        Args:
            policy: Name of the policy.
            counts: Replicas of each pool.
            between_per_s: A rate that is too low to be of interest, and the highest possible one.
            steps: Halvings of the span.

        Returns:
            The trial at the highest rate that kept the aim; None where the lower one is too high.
        """
        low, high = between_per_s
        best = self.at(policy, counts, low)
        if best.attained_frac < self.aim.attainment_frac:
            return None
        for _ in range(steps):
            middle = math.sqrt(low * high)
            trial = self.at(policy, counts, middle)
            if trial.attained_frac >= self.aim.attainment_frac:
                low, best = middle, trial
            else:
                high = middle
        return best
