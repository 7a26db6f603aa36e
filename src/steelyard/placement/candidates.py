"""Which replica of each pool would take the step?"""

import math
import zlib
from collections.abc import Callable

import numpy as np

from steelyard.domain.task import LlmCall, Step
from steelyard.errors import SteelyardBugError
from steelyard.fleet.view import FleetView, IntArray, LlmArrays
from steelyard.perf.predict import FloatArray
from steelyard.placement.scoring import displaced_tokens, queued_use_s, two_of

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


def task_key(task_id: str) -> int:
    """Hash of a task, below 2^31; the same on every machine and in every process.

    >>> task_key("task-1") == task_key("task-1") != task_key("task-2")
    True
    """
    # CRC-32, which is computed in C: `spread` takes longer than to score a pool. `mixed` scatters.
    return zlib.crc32(task_id.encode()) & 0x7FFFFFFF


def step_key(step: Step) -> int:
    """Hash of the step's task, below 2^31."""
    return task_key(step.task_id)


def step_salt(step: Step) -> int:
    """Number of the step and its attempt in one; retries are drawn anew."""
    return step.step_id * 64 + step.attempt


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
    chosen = _two_choices(step, view)
    _prefer_warm(chosen, view, view.running + view.waiting, cap)
    return chosen


def _two_choices(step: Step, view: FleetView) -> IntArray:
    """The less loaded of two drawn replicas in each pool, -1 where none is up or serves."""
    counts = np.diff(view.offsets)
    up = np.add.reduceat(np.append(view.up, 0), view.offsets[:-1], dtype=np.int64) * (counts > 0)
    chosen = np.where(view.arrays.serves & (up > 0), 0, -1)
    one, other = two_of(step_key(step), step_salt(step), np.maximum(up, 1))
    for pool in np.flatnonzero((chosen == 0) & (up < counts)):
        present = view.up[view.offsets[pool] : view.offsets[pool + 1]].nonzero()[0]
        one[pool], other[pool] = present[one[pool]], present[other[pool]]
    some = np.flatnonzero(chosen == 0)
    first = view.offsets[some]
    load = view.running + view.waiting
    one_load, other_load = load[first + one[some]], load[first + other[some]]
    is_other = (other_load < one_load) | ((other_load == one_load) & (other[some] < one[some]))
    chosen[some] = np.where(is_other, other[some], one[some])
    return chosen


def _prefer_warm(chosen: IntArray, view: FleetView, load: FloatArray, cap: FloatArray) -> None:
    """Put the replica below its cap that holds most of the prompt; ties by load, then index."""
    warm = np.flatnonzero(view.cached_tokens)
    if len(warm) == 0:
        return
    pools = np.searchsorted(view.offsets, warm, side="right") - 1
    usable = view.up[warm] & (load[warm] < cap[pools]) & view.arrays.serves[pools]
    warm, pools = warm[usable], pools[usable]
    # The best of each pool is written last, so it stays.
    for at in np.lexsort((-warm, -load[warm], view.cached_tokens[warm])):
        chosen[pools[at]] = warm[at] - view.offsets[pools[at]]


def warm_or_cold(step: Step, view: FleetView, cap: FloatArray) -> IntArray:
    """Take the replica that holds most of the prompt, unless its queue costs more than it saves.

    A cold replica must prefill the prompt anew; a warm one may have a queue. Both are compared by
    the replica time that the step takes there, with a surcharge in proportion to the wait, as
    pools are (`Predictions.bid_cost_usd`), and by what open tasks must compute anew for the sake
    of it (`displaced_tokens`). The cold one is the less loaded of two drawn ones; where the size of
    the memory is known, the one in which contexts of open tasks lack the least room.

    A `CandidateRule`, as `cached_then_two_choices` is.
    """
    cold = _two_choices(step, view)
    arrays = view.arrays
    if not isinstance(arrays, LlmArrays):
        return cold
    _prefer_room(cold, step, view, arrays)
    if not view.cached_tokens.any():
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


def _prefer_room(cold: IntArray, step: Step, view: FleetView, arrays: LlmArrays) -> None:
    """Put the replica where contexts lack the least room; ties by load, then index."""
    new_tokens = _whole_tokens(step, view.expected.output_tokens)
    for pool in np.flatnonzero((cold >= 0) & np.isfinite(arrays.kv_tokens)):
        first, end = int(view.offsets[pool]), int(view.offsets[pool + 1])
        lacks = np.maximum(view.live_tokens[first:end] + new_tokens - arrays.kv_tokens[pool], 0.0)
        load = view.running[first:end] + view.waiting[first:end]
        for replica in np.lexsort((load, lacks)):
            if view.up[first + replica]:
                cold[pool] = replica
                break


def _whole_tokens(step: Step, output_tokens: float) -> float:
    """Prompt and answer of a step."""
    return output_tokens + (step.call.input_tokens if isinstance(step.call, LlmCall) else 0)


def _use_s(step: Step, view: FleetView, pool: int, at: int) -> float:
    """`queued_use_s` of a step on one replica."""
    arrays, call = view.arrays, step.call
    if not isinstance(arrays, LlmArrays) or not isinstance(call, LlmCall):
        raise SteelyardBugError(f"step {step.key} is a tool call and was given cached prompts")
    floor_s, per_token_s, base_s, slope_s, cap = (float(one[pool]) for one in arrays.curve)
    uncached = max(0.0, call.input_tokens - float(view.cached_tokens[at]))
    live, kv = float(view.live_tokens[at]), float(arrays.kv_tokens[pool])
    if not math.isinf(kv):
        uncached += displaced_tokens(live, kv, uncached + view.expected.output_tokens)
    load = (
        float(view.running[at]),
        float(view.waiting[at]),
        float(view.service_sum_s[at]),
        float(view.prefill_share_sum_s[at]),
    )
    return queued_use_s(
        (floor_s, per_token_s, base_s, slope_s, cap),
        (uncached, view.expected.output_tokens),
        load,
        float(view.correction[pool]),
    )


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
    return eligible[list(two_of(step_key(step), step_salt(step), len(eligible)))]


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
