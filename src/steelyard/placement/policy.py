"""The interface of every policy, and ours: the cheapest pool that still meets the deadline."""

from typing import Protocol

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.view import FewView, FleetView, LlmArrays, few_view
from steelyard.perf.predict import BoolArray
from steelyard.placement import few_pools
from steelyard.placement.candidates import warm_or_cold
from steelyard.placement.predictions import (
    decide,
    predict,
    refuse,
    runs_late,
    seen_as_whole,
)
from steelyard.placement.scoring import TIE_FRAC, cheapest_in_time, least_late
from steelyard.placement.unbound import decide_unbound


class Policy(Protocol):
    """A pure function from a step and a view of the fleet to a decision or a refusal."""

    @property
    def name(self) -> str:
        """The name by which users choose it."""
        ...

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?"""
        ...


class CheapestFeasible:
    """The cheapest pool with `slack_s >= 0`, by bid price; then the warmest replica in it.

    Among pools that are as cheap to within 5 %, the one that finishes first.

    A pool counts only if its end is within the step's share of the slack (ADR 17). Spend
    caps of providers are constraints (ADR 37). Thin for now: the expected remaining work is a mean
    plus a standard deviation, not a quantile.
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
        small = few_pools.is_small(len(view.pools), len(view.running))
        if small and isinstance(arrays, LlmArrays):
            return self.by_few(step, few_view(view, arrays))
        return self.by_arrays(step, view)

    def by_few(self, step: Step, few: FewView) -> Decision | Refusal:
        """The same for an LLM step in a small fleet, without a NumPy array being made."""
        call = step.call
        if step.deadline_s is None and step.budget_usd is None and isinstance(call, LlmCall):
            decision = decide_unbound(step, call, few, TIE_FRAC, self.name)
            if decision is not None:
                return decision
        scores = few_pools.score(step, few)
        chosen = few_pools.choose(scores, step, TIE_FRAC)
        if chosen is None:
            return few_pools.refusal(scores, few, self.name)
        return few_pools.decision(scores, chosen, step, few, self.name)

    def by_arrays(self, step: Step, view: FleetView) -> Decision | Refusal:
        """The same answer, for fleets of any size."""
        seen = predict(step, view, warm_or_cold)
        if step.asks_to_begin and view.expected.remaining_s > 0.0:
            seen = seen_as_whole(seen)
        can: BoolArray = seen.runs & seen.affordable
        if not bool(can.any()):
            return refuse(view, seen, self.name)
        allowed: list[bool] = can.tolist()
        slack_s: list[float] = seen.slack_s.tolist()
        names = [spec.name for spec in view.pools]
        chosen = cheapest_in_time(
            allowed,
            seen.patient.tolist(),
            slack_s,
            seen.finish_s.tolist(),
            seen.bid_cost_usd.tolist(),
            names,
        )
        if chosen < 0:
            chosen = least_late(allowed, slack_s, names)
            at_start_s = slack_s[chosen] + float(seen.wait_s[chosen])
            if not runs_late(step, at_start_s + float(seen.grace_s[chosen])):
                return refuse(view, seen, self.name)
        return decide(step, view, seen, chosen, self.name)
