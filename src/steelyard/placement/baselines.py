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
from steelyard.fleet.view import FleetView, LlmArrays
from steelyard.perf.predict import FloatArray
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

# (step, view, predictions) -> keys of shape [pools], the most important first; least is best
Ranking = Callable[[Step, FleetView, Predictions], tuple[FloatArray, ...]]


@dataclass(frozen=True, slots=True)
class RankedPolicy:
    """Takes the pool that ranks first among those that can run the step inside its budget.

    Attributes:
        name: The name by which users choose it.
        ranking: Keys by which pools are compared; ties are broken by the pool's name.
        candidates: Which replica of each pool would take the step.
    """

    name: str
    ranking: Ranking
    candidates: CandidateRule

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?

        Args:
            step: The step to be placed.
            view: The fleet as the step sees it.

        Returns:
            The pool that ranks first; a refusal when the budget or the fleet allows none.
        """
        seen = predict(step, view, self.candidates)
        allowed = [int(pool) for pool in np.flatnonzero(seen.runs & seen.affordable)]
        if not allowed:
            return refuse(view, seen, self.name)
        keys = self.ranking(step, view, seen)
        chosen = min(
            allowed, key=lambda pool: (*(float(key[pool]) for key in keys), view.pools[pool].name)
        )
        return decide(step, view, seen, chosen, self.name)


def _load(view: FleetView, seen: Predictions) -> FloatArray:
    """Steps on the candidate of each pool; infinite where there is none. Shape [pools]."""
    at = np.where(seen.replica >= 0, view.offsets[:-1] + seen.replica, 0)
    load: FloatArray = np.where(seen.replica >= 0, view.running[at] + view.waiting[at], np.inf)
    return load


def _not_on(view: FleetView, hardware: frozenset[str]) -> FloatArray:
    """1 for pools on other hardware, 0 else: other pools serve only what these cannot."""
    return np.array([float(spec.hardware not in hardware) for spec in view.pools])


def _by_gpu(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step
    return (_not_on(view, frozenset({"gpu"})), _load(view, seen))


def _by_cpu(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step
    return (_not_on(view, frozenset({"arm", "x86"})), _load(view, seen))


def _by_cost(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step, view
    return (seen.cost_usd, seen.finish_s)


def _by_draw(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    """The pools of the drawn replicas first, the less loaded one of them."""
    drawn = drawn_replicas(step, view)
    pools = np.searchsorted(view.offsets, drawn, side="right") - 1
    missed = np.ones(len(view.pools))
    missed[pools] = 0.0
    return (missed, _load(view, seen))


def _by_first_draw(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del seen
    missed = np.ones(len(view.pools))
    missed[np.searchsorted(view.offsets, drawn_replicas(step, view)[:1], side="right") - 1] = 0.0
    return (missed,)


def _by_normalised_load(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step
    arrays = view.arrays
    cap = arrays.curve[4] if isinstance(arrays, LlmArrays) else arrays.slots
    return (_load(view, seen) / cap, seen.finish_s)


def _by_prefix(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step
    return (-seen.cached_tokens, _load(view, seen))


def _by_finish(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    del step, view
    return (seen.finish_s,)


def _by_spare_slack(step: Step, view: FleetView, seen: Predictions) -> tuple[FloatArray, ...]:
    """In time before late; then the slowest of those in time, and the fastest of the late."""
    del step, view
    late = seen.slack_s < 0.0
    return (late.astype(np.float64), np.where(late, seen.finish_s, -seen.finish_s))


least_loaded_gpu = RankedPolicy("least_loaded_gpu", _by_gpu, least_loaded)
"""All-GPU: the least loaded GPU replica; other pools only for steps that no GPU pool runs."""

all_cpu = RankedPolicy("all_cpu", _by_cpu, least_loaded)
"""All-CPU: the least loaded Arm or x86 replica; others only for steps that no CPU pool runs."""

cheapest_first = RankedPolicy("cheapest_first", _by_cost, cached_then_two_choices)
"""The lowest predicted cost at rent, whatever the load and the deadline."""

round_robin = RankedPolicy("round_robin", _by_first_draw, one_drawn)
"""Every replica in turn. A pure policy has no counter, so a hash of the step takes its place."""

join_shortest_of_two = RankedPolicy("join_shortest_of_two", _by_draw, two_drawn)
"""The less loaded of two replicas drawn over the fleet (Mitzenmacher, IEEE TPDS 12(10), 2001)."""

normalised_least_load = RankedPolicy("normalised_least_load", _by_normalised_load, least_loaded)
"""The replica with the least load per place."""

prefix_affinity = RankedPolicy("prefix_affinity", _by_prefix, cached_then_two_choices)
"""The replica that holds most of the prompt; without one, the less loaded of two."""

earliest_deadline = RankedPolicy("earliest_deadline", _by_finish, cached_then_two_choices)
"""Earliest deadline first: queues order by latest start, and each step goes where it ends first."""

just_enough = RankedPolicy("just_enough", _by_spare_slack, cached_then_two_choices)
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
