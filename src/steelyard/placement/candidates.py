"""Which replica of each pool would take the step?"""

from collections.abc import Callable

import numpy as np

from steelyard.domain.task import Step
from steelyard.fleet.view import FleetView, IntArray
from steelyard.perf.predict import FloatArray

# (step, view, concurrency cap of each pool, shape [pools]) -> replica in each pool or -1
CandidateRule = Callable[[Step, FleetView, FloatArray], IntArray]

_MASK = (1 << 64) - 1


def spread(text: str, salt: int) -> int:
    """A hash that is the same on every machine and in every process (FNV-1a, 64 bits).

    >>> spread("task-1", 0) == spread("task-1", 0)
    True
    """
    value = (0xCBF29CE484222325 ^ salt) & _MASK
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return value ^ (value >> 29)


def cached_then_two_choices(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replica that holds most of the prompt; else the less loaded of two drawn ones.

    A replica that holds the prefix but is at its cap loses its claim. The draw hashes the step,
    so the same step in the same fleet is drawn the same way in a replay. Power of two choices:
    Mitzenmacher, IEEE TPDS 12(10), 2001.

    Args:
        step: The step to be placed.
        view: The fleet as the step sees it.
        cap: Steps that run at once on a replica, shape [pools].

    Returns:
        Index of the replica within its pool, -1 where no replica is up; shape [pools].
    """
    chosen = np.full(len(view.pools), -1, dtype=np.int64)
    for pool in range(len(view.pools)):
        first, end = int(view.offsets[pool]), int(view.offsets[pool + 1])
        up = np.flatnonzero(view.up[first:end])
        if len(up) == 0:
            continue
        load = view.running[first:end] + view.waiting[first:end]
        cached = view.cached_tokens[first:end]
        warm = up[(cached[up] > 0.0) & (load[up] < cap[pool])]
        if len(warm) > 0:
            best = warm[np.lexsort((warm, load[warm], -cached[warm]))[0]]
            chosen[pool] = best
            continue
        drawn = spread(step.task_id, step.step_id * 64 + step.attempt)
        one = int(up[drawn % len(up)])
        # The second draw skips the first, so that two replicas are always two.
        other = int(up[(drawn % len(up) + 1 + (drawn >> 20) % max(1, len(up) - 1)) % len(up)])
        chosen[pool] = min((load[one], one), (load[other], other))[1]
    return chosen
