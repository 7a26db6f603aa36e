"""Baselines under the same interface: what every claim about our policy is made against.

All of them see what ours sees and keep a task's budget; most ignore its deadline, as the
schedulers they stand for do, and never refuse for it. Queues order by latest start for all of them
(which is generous: most real ones serve in order of arrival) but those of `program_level`.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.task import Step
from steelyard.errors import ConfigError
from steelyard.fleet.view import FleetView, IntArray, LlmArrays
from steelyard.perf.predict import BoolArray, FloatArray
from steelyard.placement.candidates import (
    CandidateRule,
    cached_then_two_choices,
    drawn_replicas,
    least_loaded,
    one_drawn,
    two_drawn,
)
from steelyard.placement.policy import CheapestFeasible, Policy
from steelyard.placement.predictions import Predictions, decide, predict, refuse
from steelyard.placement.program_level import (
    ProgramPolicy,
    program_fcfs,
    program_least_attained,
)
from steelyard.placement.ranks import (
    Traits,
    by_cost,
    by_cpu,
    by_draw,
    by_finish,
    by_first_draw,
    by_gpu,
    by_normalised_load,
    by_prefix,
    by_spare_slack,
    first_ranked,
)

# traits of the pools -> two keys, the more important first; least is best
Ranking = Callable[[Traits[FloatArray]], tuple[FloatArray, FloatArray]]


def _draws_none(step: Step, view: FleetView) -> IntArray:
    del step, view
    return np.zeros(0, dtype=np.int64)


def _draws_one(step: Step, view: FleetView) -> IntArray:
    return drawn_replicas(step, view)[:1]


@dataclass(frozen=True, slots=True)
class RankedPolicy:
    """Takes the pool that ranks first among those that can run the step inside its budget.

    Attributes:
        name: The name by which users choose it.
        ranking: Keys by which pools are compared; ties are broken by the pool's name.
        candidates: Which replica of each pool would take the step.
        drawn: Replicas that are drawn over the whole fleet, for rankings that look at it.
    """

    name: str
    ranking: Ranking
    candidates: CandidateRule
    drawn: Callable[[Step, FleetView], IntArray] = _draws_none

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?

        Args:
            step: The step to be placed.
            view: The fleet as the step sees it.

        Returns:
            The pool that ranks first; a refusal when the budget or the fleet allows none.
        """
        seen = predict(step, view, self.candidates)
        allowed: BoolArray = seen.runs & seen.affordable
        if not bool(allowed.any()):
            return refuse(view, seen, self.name)
        first, second = self.ranking(_traits(view, seen, self.drawn(step, view)))
        names = [spec.name for spec in view.pools]
        chosen = first_ranked(allowed.tolist(), first.tolist(), second.tolist(), names)
        return decide(step, view, seen, chosen, self.name)


def _traits(view: FleetView, seen: Predictions, drawn: IntArray) -> Traits[FloatArray]:
    """What the pools are ranked by, each of shape [pools]."""
    at = np.where(seen.replica >= 0, view.offsets[:-1] + seen.replica, 0)
    arrays = view.arrays
    undrawn = np.ones(len(view.pools))
    undrawn[np.searchsorted(view.offsets, drawn, side="right") - 1] = 0.0
    hardware = [spec.hardware for spec in view.pools]
    return Traits(
        off_gpu=np.array([float(one != "gpu") for one in hardware]),
        off_cpu=np.array([float(one not in {"arm", "x86"}) for one in hardware]),
        undrawn=undrawn,
        load=np.where(seen.replica >= 0, view.running[at] + view.waiting[at], np.inf),
        cap=arrays.curve[4] if isinstance(arrays, LlmArrays) else arrays.slots,
        cached_tokens=seen.cached_tokens,
        cost_usd=seen.cost_usd,
        finish_s=seen.finish_s,
        slack_s=seen.slack_s,
    )


least_loaded_gpu = RankedPolicy("least_loaded_gpu", by_gpu, least_loaded)
"""All-GPU: the least loaded GPU replica; other pools only for steps that no GPU pool runs."""

all_cpu = RankedPolicy("all_cpu", by_cpu, least_loaded)
"""All-CPU: the least loaded Arm or x86 replica; others only for steps that no CPU pool runs."""

cheapest_first = RankedPolicy("cheapest_first", by_cost, cached_then_two_choices)
"""The lowest predicted cost at rent, whatever the load and the deadline."""

round_robin = RankedPolicy("round_robin", by_first_draw, one_drawn, _draws_one)
"""Every replica in turn. A pure policy has no counter, so a hash of the step takes its place."""

join_shortest_of_two = RankedPolicy("join_shortest_of_two", by_draw, two_drawn, drawn_replicas)
"""The less loaded of two replicas drawn over the fleet (Mitzenmacher, IEEE TPDS 12(10), 2001)."""

normalised_least_load = RankedPolicy("normalised_least_load", by_normalised_load, least_loaded)
"""The replica with the least load per place."""

prefix_affinity = RankedPolicy("prefix_affinity", by_prefix, cached_then_two_choices)
"""The replica that holds most of the prompt; without one, the less loaded of two."""

earliest_deadline = RankedPolicy("earliest_deadline", by_finish, cached_then_two_choices)
"""Earliest deadline first: queues order by latest start, and each step goes where it ends first."""

just_enough = RankedPolicy("just_enough", by_spare_slack, cached_then_two_choices)
"""The slowest pool that still meets the deadline; the fastest when none does."""

BASELINES: tuple[RankedPolicy | ProgramPolicy, ...] = (
    all_cpu,
    cheapest_first,
    earliest_deadline,
    join_shortest_of_two,
    just_enough,
    least_loaded_gpu,
    normalised_least_load,
    prefix_affinity,
    program_fcfs,
    program_least_attained,
    round_robin,
)
"""All baselines, by name."""


def policy_named(name: str) -> Policy:
    """Which policy has this name?

    Args:
        name: `cheapest_feasible`, or the name of a baseline.

    Returns:
        The policy.

    Raises:
        ConfigError: No policy has the name; the message holds the nearest ones.

    >>> policy_named("round_robin").name
    'round_robin'
    """
    policies: dict[str, Policy] = {policy.name: policy for policy in BASELINES}
    policies[CheapestFeasible.name] = CheapestFeasible()
    if name not in policies:
        near = difflib.get_close_matches(name, policies, n=3)
        cure = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(policies)}"
        raise ConfigError(f"policy {name!r} is unknown; {cure}")
    return policies[name]


def policy_names() -> tuple[str, ...]:
    """Names of all policies, ours first."""
    return (CheapestFeasible.name, *(policy.name for policy in BASELINES))
