"""Which replica of each pool would take the step?"""

from collections.abc import Callable

import numpy as np

from steelyard.domain.task import LlmCall, Step
from steelyard.errors import SteelyardBugError
from steelyard.fleet.view import FleetView, IntArray, LlmArrays
from steelyard.perf.cost import llm_used_s
from steelyard.perf.predict import FloatArray, itl_s

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
        Index of the replica within its pool, -1 where none is up or serves the step; shape
        [pools].
    """
    chosen = np.full(len(view.pools), -1, dtype=np.int64)
    drawn = spread(step.task_id, step.step_id * 64 + step.attempt)
    is_warm = bool(view.cached_tokens.any())
    for pool in np.flatnonzero(view.arrays.serves):
        first, end = int(view.offsets[pool]), int(view.offsets[pool + 1])
        up = view.up[first:end].nonzero()[0]
        if len(up) == 0:
            continue
        load = view.running[first:end] + view.waiting[first:end]
        warm = _warmest(view.cached_tokens[first:end], load, up, cap[pool]) if is_warm else -1
        chosen[pool] = warm if warm >= 0 else _less_loaded(load, up, drawn)
    return chosen


def warm_or_cold(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replica that holds most of the prompt, unless its queue costs more than it saves.

    A cold replica must prefill the prompt anew; a warm one may have a queue. Both are compared by
    the replica time that the step takes there, with a surcharge in proportion to the wait, as
    pools are (`Predictions.bid_cost_usd`). The cold one is the less loaded of two drawn ones.

    A `CandidateRule`, as `cached_then_two_choices` is.
    """
    cold = _two_choices(step, view)
    arrays = view.arrays
    if not isinstance(arrays, LlmArrays) or not view.cached_tokens.any():
        return cold
    load = view.running + view.waiting
    held = np.flatnonzero((view.cached_tokens > 0.0) & view.up)
    pools = np.searchsorted(view.offsets, held, side="right") - 1
    chosen = cold.copy()
    for pool in sorted(set(pools.tolist())):
        if not arrays.serves[pool]:
            continue
        mine = held[pools == pool]
        order = np.lexsort((mine, load[mine], -view.cached_tokens[mine]))
        warm = int(mine[order[0]])
        other = int(view.offsets[pool] + cold[pool])
        if _use_s(step, view, pool, warm) <= _use_s(step, view, pool, other):
            chosen[pool] = warm - int(view.offsets[pool])
    return chosen


def _use_s(step: Step, view: FleetView, pool: int, at: int) -> float:
    """`queued_use_s` of a step on one replica."""
    arrays, call = view.arrays, step.call
    if not isinstance(arrays, LlmArrays) or not isinstance(call, LlmCall):
        raise SteelyardBugError(f"step {step.key} is a tool call and was given cached prompts")
    floor_s, per_token_s, base_s, slope_s, cap = (float(one[pool]) for one in arrays.curve)
    uncached = max(0.0, call.input_tokens - float(view.cached_tokens[at]))
    load = (float(view.running[at]), float(view.waiting[at]), float(view.service_sum_s[at]))
    return queued_use_s(
        (floor_s, per_token_s, base_s, slope_s, cap),
        (uncached, view.expected.output_tokens),
        load,
        float(view.correction[pool]),
    )


def queued_use_s(
    curve: tuple[float, float, float, float, float],
    tokens: tuple[float, float],
    load: tuple[float, float, float],
    correction: float,
) -> float:
    """How much replica time does an LLM step take, dearer in proportion to its wait?

    Args:
        curve: The pool's, as in `LlmArrays`.
        tokens: Uncached input and output.
        load: Steps that run and wait on the replica, and their service times together, in s.
        correction: Measured over predicted service time.

    Returns:
        Seconds.
    """
    floor_s, per_token_s, base_s, slope_s, cap = curve
    uncached, output = tokens
    running, waiting, service_sum_s = load
    used_s = llm_used_s(curve, uncached, output)
    if running < cap:
        return used_s
    wait_s = (waiting + 1.0) * service_sum_s / (running + waiting) / cap
    gap_s = itl_s(base_s, slope_s, cap)
    service_s = (floor_s + per_token_s * uncached + output * gap_s) * correction
    return used_s * (1.0 + wait_s / max(service_s, 1e-9))


def _two_choices(step: Step, view: FleetView) -> IntArray:
    """The less loaded of two drawn replicas in each pool, -1 where none is up or serves."""
    chosen = np.full(len(view.pools), -1, dtype=np.int64)
    drawn = spread(step.task_id, step.step_id * 64 + step.attempt)
    for pool in np.flatnonzero(view.arrays.serves):
        first, end = int(view.offsets[pool]), int(view.offsets[pool + 1])
        up = view.up[first:end].nonzero()[0]
        if len(up):
            chosen[pool] = _less_loaded(
                view.running[first:end] + view.waiting[first:end], up, drawn
            )
    return chosen


def _warmest(cached: FloatArray, load: FloatArray, up: IntArray, cap: float) -> int:
    """The replica below its cap that holds most of the prompt, or -1; ties by load, then index."""
    warm = up[(cached[up] > 0.0) & (load[up] < cap)]
    if len(warm) == 0:
        return -1
    return int(warm[np.lexsort((warm, load[warm], -cached[warm]))[0]])


def _less_loaded(load: FloatArray, up: IntArray, drawn: int) -> int:
    """The less loaded of two replicas that a hash draws."""
    # The second draw skips the first, so that two replicas are always two.
    first = drawn % len(up)
    second = (first + 1 + (drawn >> 20) % max(1, len(up) - 1)) % len(up)
    one, other = int(up[first]), int(up[second])
    return min((float(load[one]), one), (float(load[other]), other))[1]


def least_loaded(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replica with the fewest steps; ties by index.

    A `CandidateRule`, as `cached_then_two_choices` is.
    """
    del step, cap
    chosen = np.full(len(view.pools), -1, dtype=np.int64)
    load = np.where(view.up, view.running + view.waiting, np.inf)
    for pool in np.flatnonzero(view.arrays.serves):
        first, end = int(view.offsets[pool]), int(view.offsets[pool + 1])
        if bool(view.up[first:end].any()):
            chosen[pool] = np.argmin(load[first:end])
    return chosen


def drawn_replicas(step: Step, view: FleetView) -> IntArray:
    """Two replicas of the fleet, drawn by a hash of the step; each has the same chance.

    Args:
        step: The step to be placed.
        view: The fleet as the step sees it.

    Returns:
        Places in the arrays of shape [replicas] of two that are up, serve the step and have a
        closed breaker: shape [2], or [1] or [0] where there are not two.
    """
    pool_ok = view.arrays.serves & view.closed
    eligible = np.flatnonzero(view.up & np.repeat(pool_ok, np.diff(view.offsets)))
    if len(eligible) < 2:
        return eligible
    drawn = spread(step.task_id, step.step_id * 64 + step.attempt)
    first = drawn % len(eligible)
    second = (first + 1 + (drawn >> 20) % (len(eligible) - 1)) % len(eligible)
    return eligible[[first, second]]


def one_drawn(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replica that `drawn_replicas` draws first; in other pools the least loaded one."""
    return _drawn_first(view, drawn_replicas(step, view)[:1], least_loaded(step, view, cap))


def two_drawn(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replicas that `drawn_replicas` draws; in other pools the least loaded one."""
    return _drawn_first(view, drawn_replicas(step, view), least_loaded(step, view, cap))


def _drawn_first(view: FleetView, drawn: IntArray, otherwise: IntArray) -> IntArray:
    places: list[int] = drawn.tolist()
    load = view.running + view.waiting
    # The less loaded one is written last, so it stays where both are in one pool.
    for place in sorted(places, key=lambda one: (-float(load[one]), -one)):
        pool = int(np.searchsorted(view.offsets, place, side="right")) - 1
        otherwise[pool] = place - int(view.offsets[pool])
    return otherwise
