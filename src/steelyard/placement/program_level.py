"""Baselines that look at whole tasks: least attained service, and first come first served.

Schedulers of this kind call a task a program. Both keep a task's budget and ignore its deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.task import LlmCall, Step
from steelyard.fleet.view import FleetView, IntArray, LlmArrays
from steelyard.perf.predict import FloatArray
from steelyard.placement.candidates import least_loaded
from steelyard.placement.predictions import decide, predict, refuse
from steelyard.placement.scoring import SHORT_PROMPT_TOKENS, cache_to_live_s

# (step, view) -> does the step stay on the replica of its task's last call?
Staying = Callable[[Step, FleetView], bool]
# view -> key by which the replica's queue is ordered, the least first
Order = Callable[[FleetView], float]


@dataclass(frozen=True, slots=True)
class ProgramPolicy:
    """Orders queues by a property of the task, and keeps a task's calls on one replica for a while.

    Attributes:
        name: The name by which users choose it.
        stays: Whether a call goes where the task's last one ran.
        order: What queues are ordered by.
    """

    name: str
    stays: Staying
    order: Order

    def __call__(self, step: Step, view: FleetView) -> Decision | Refusal:
        """Where does the step go?

        Args:
            step: The step to be placed.
            view: The fleet as the step sees it.

        Returns:
            The replica of the task's last call, or the one with the least load for its places; a
            refusal when the budget or the fleet allows none.
        """
        home = view.history.last_at
        stays = home >= 0 and bool(view.up[home]) and self.stays(step, view)

        def candidates(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
            chosen = least_loaded(step, view, cap)
            if stays:
                pool = int(np.searchsorted(view.offsets, home, side="right")) - 1
                chosen[pool] = home - int(view.offsets[pool])
            return chosen

        seen = predict(step, view, candidates)
        allowed = [int(pool) for pool in np.flatnonzero(seen.runs & seen.affordable)]
        if not allowed:
            return refuse(view, seen, self.name)
        at = view.offsets[:-1] + seen.replica
        arrays = view.arrays
        cap = arrays.curve[4] if isinstance(arrays, LlmArrays) else arrays.slots

        def rank(pool: int) -> tuple[bool, float, str]:
            load = float(view.running[at[pool]] + view.waiting[at[pool]])
            away = not (stays and int(at[pool]) == home)
            return (away, load / float(cap[pool]), view.pools[pool].name)

        decision = decide(step, view, seen, min(allowed, key=rank), self.name)
        return msgspec.structs.replace(decision, queue_key=self.order(view))


def _long_prompt(step: Step, view: FleetView) -> bool:
    del view
    return isinstance(step.call, LlmCall) and step.call.input_tokens > SHORT_PROMPT_TOKENS


def _cache_lives(step: Step, view: FleetView) -> bool:
    """Has the cache been kept for less than a new prefill is worth?"""
    arrays, call = view.arrays, step.call
    if not isinstance(arrays, LlmArrays) or not isinstance(call, LlmCall):
        return False
    pool = int(np.searchsorted(view.offsets, view.history.last_at, side="right")) - 1
    _, per_token_s, _, _, cap = (float(one[pool]) for one in arrays.curve)
    to_live_s = cache_to_live_s(per_token_s, call.input_tokens, cap)
    return view.now_s - view.history.last_end_s <= to_live_s


def _attained_s(view: FleetView) -> float:
    return view.history.attained_s


def _submitted_s(view: FleetView) -> float:
    return view.history.submitted_s


program_least_attained = ProgramPolicy("program_least_attained", _long_prompt, _attained_s)
"""Program-level least attained service (Luo et al., Autellix, arXiv:2502.13965, 2025).

Calls of the task that has been served least so far go first. Thin: running calls are not preempted.
"""

program_fcfs = ProgramPolicy("program_fcfs", _cache_lives, _submitted_s)
"""Tasks first come first served, with a cache time-to-live over tool calls (Continuum,
arXiv:2511.02230, 2025): a call waits for its task's replica while its cache is worth keeping."""
