"""The interface of every policy, and ours: the cheapest pool that still meets the deadline."""

from typing import Protocol

import numpy as np

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.task import Step
from steelyard.fleet.view import FleetView, LlmArrays
from steelyard.placement import few_pools
from steelyard.placement.candidates import warm_or_cold
from steelyard.placement.predictions import Predictions, decide, predict, refuse

# Pools within this share of the cheapest are as cheap. At a plan's bid prices all hardware that the
# plan sends a step to costs the same (complementary slackness): a bare minimum would send every
# step to one of them and let the others idle.
_TIE_FRAC = 0.05


class Policy(Protocol):
    """A pure function from a step and a view of the fleet to a decision or a refusal."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        ...

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?"""
        ...


def _earliest(seen: Predictions, pools: list[int]) -> list[int]:
    """The one pool that finishes first, of some; none of none."""
    return sorted(pools, key=lambda pool: (float(seen.finish_s[pool]), pool))[:1]


class CheapestFeasible:
    """The cheapest pool with `slack_s >= 0`, by bid price; then the warmest replica in it.

    Among pools that are as cheap to within 5 %, the one that finishes first.

    A pool counts only if its end is within the step's share of the slack (ADR 17). Thin for now:
    provider share caps are not constraints yet, and the expected remaining work is a mean plus a
    standard deviation, not a quantile.
    """

    name = "cheapest_feasible"

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?

        Args:
            step: The step to be placed.
            view: The fleet as the step sees it.

        Returns:
            The cheapest pool that meets the deadline inside the budget. When none meets the
            deadline, the least late one if the step says `run_late`, else a refusal. When the
            budget allows none, a refusal.
        """
        arrays = view.arrays
        if isinstance(arrays, LlmArrays) and few_pools.is_small(view):
            scores = few_pools.score(step, view, arrays)
            chosen = few_pools.choose(scores, step, _TIE_FRAC)
            if chosen is None:
                return few_pools.refusal(scores, view, self.name)
            return few_pools.decision(scores, chosen, step, view, self.name)
        return self.by_arrays(step, view)

    def by_arrays(self, step: Step, view: FleetView) -> Decision | Refusal:
        """The same answer, for fleets of any size."""
        seen = predict(step, view, warm_or_cold)
        allowed = [int(pool) for pool in np.flatnonzero(seen.runs & seen.affordable)]
        if not allowed:
            return refuse(view, seen, self.name)
        in_time = [pool for pool in allowed if seen.slack_s[pool] >= 0.0]
        # Where every pool takes more than the step's share of the slack, the earliest end counts.
        in_time = [pool for pool in in_time if seen.patient[pool]] or _earliest(seen, in_time)
        if in_time:
            least_usd = min(float(seen.bid_cost_usd[pool]) for pool in in_time)
            ties = [
                pool
                for pool in in_time
                if float(seen.bid_cost_usd[pool]) <= least_usd * (1.0 + _TIE_FRAC)
            ]
            chosen = min(
                ties,
                key=lambda pool: (
                    float(seen.finish_s[pool]),
                    float(seen.bid_cost_usd[pool]),
                    view.pools[pool].name,
                ),
            )
        elif step.on_miss == "refuse":
            return refuse(view, seen, self.name)
        else:
            chosen = min(
                allowed, key=lambda pool: (-float(seen.slack_s[pool]), view.pools[pool].name)
            )
        return decide(step, view, seen, chosen, self.name)
