"""The arithmetic of placement, written once: for all pools at a time, or for one in a kernel.

Every function here works alike on floats and on arrays of shape [pools], or reads its arrays
element by element. The gateway calls them on arrays; the compiled simulator calls the same ones on
floats, translated by Numba. How baselines rank pools is in `ranks`.
"""

import math
from typing import Any

import numpy as np

from steelyard.perf.cost import llm_used_s
from steelyard.perf.predict import Number, pick, prefill_s, shared_itl_s
from steelyard.perf.predict import queue_wait_s as _queue_wait_s

# Agents take 20-100 steps (public traces, 2026-11-22): so much of the slack is a step's own before
# any task of its agent has ended.
_USUAL_STEPS = 20.0
_SHORTEST_S = 1e-9
# Pools within this share of the cheapest are as cheap. At a plan's bid prices all hardware that the
# plan sends a step to costs the same (complementary slackness): a bare minimum would send every
# step to one of them and let the others idle.
TIE_FRAC = 0.05
_MASK_31 = 0x7FFFFFFF
# Autellix sends shorter prompts to the least loaded engine; longer ones stay where the task is.
SHORT_PROMPT_TOKENS = 2048

# Anything that is read by the number of the pool: a list here, an array in a kernel.
Column = Any


def mixed(key: int, salt: int) -> int:
    """A hash of two numbers, below 2^31: products stay below 2^63, so that no language wraps.

    >>> mixed(1, 2) == mixed(1, 2) != mixed(1, 3)
    True
    """
    value = (key + salt * 0x9E3779B1) & _MASK_31
    value = ((value ^ (value >> 16)) * 0x45D9F3B) & _MASK_31
    value = ((value ^ (value >> 15)) * 0x45D9F3B) & _MASK_31
    return value ^ (value >> 16)


def two_of(key: int, salt: int, count: Any) -> Any:  # noqa: ANN401 - a number or an array
    """Two different ones of `count`, drawn by a hash; the same one twice where there is but one.

    Args:
        key: Hash of the task.
        salt: Number of the step and the attempt.
        count: How many there are to draw from, at least 1; a number or an array.

    Returns:
        The two, in the order in which they were drawn.

    >>> sorted(int(one) for one in two_of(7, 0, 2))
    [0, 1]
    """
    first = mixed(key, 2 * salt) % count
    # The second draw skips the first, so that two are always two.
    second = (first + 1 + mixed(key, 2 * salt + 1) % np.maximum(1, count - 1)) % count
    return first, second


def llm_times_s(
    curve: tuple[Number, Number, Number, Number, Number],
    correction: Number,
    uncached: Number,
    output: Number,
    load: tuple[Number, Number, Number],
) -> tuple[Number, Number]:
    """How long would an LLM step take, from its start?

    The steps there, or such as follow them, prefill while it decodes (`shared_itl_s`). Thin: what
    they prefill before its first token is counted among its gaps; the sum is the same.

    Args:
        curve: `ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, concurrency_cap`.
        correction: Measured over predicted service time.
        uncached: Prompt tokens that are not in the cache.
        output: Expected length of the answer.
        load: Steps that run on the replica, steps that wait there, and the sum of their
            `prefill_share_s`.

    Returns:
        Seconds to the first token, and to the end.
    """
    floor_s, per_token_s, itl_base_s, itl_slope_s, cap = curve
    ttft_s = prefill_s(floor_s, per_token_s, uncached) * correction
    running, waiting, share_sum_s = load
    concurrency: Any = np.minimum(running + 1.0, cap)
    share_s: Any = share_sum_s / np.maximum(running + waiting, 1.0)
    gap_s = shared_itl_s(itl_base_s, itl_slope_s, concurrency, share_s)
    return ttft_s, ttft_s + output * gap_s * correction


def grace_s(
    remaining_s: float, deviation_s: float, service_s: Number, error_frac: Number
) -> Number:
    """How long after its latest start is a step surely late?

    A latest start is cautious: it leaves the mean of what remains of the task and a standard
    deviation more. Given up is a step only where the mean less two of them is too much, should the
    step itself take as much longer than predicted as they do.

    Args:
        remaining_s: Expected seconds from the end of the step to the end of its task: mean and
            standard deviation.
        deviation_s: The standard deviation.
        service_s: Predicted seconds of service of the step itself.
        error_frac: By how much service times of the pool may be off.

    Returns:
        Seconds, negative before the latest start.
    """
    return min(remaining_s, 3.0 * deviation_s) - service_s * error_frac


def wait_s(
    book: tuple[Number, Number, Number, Number], service_s: Number, cap: Number, longest_s: Number
) -> Number:
    """How long would a step wait at a replica?

    Steps that cannot be in time behind those in front of them let later ones pass that can, see
    `steelyard.placement.queue`.

    Args:
        book: Steps that run there, steps that wait, those of them that let others pass, and
            predicted seconds of service of all that run and wait.
        service_s: Predicted seconds of service of the step itself.
        cap: Steps that run at once.
        longest_s: With a longer wait it is late itself, and waits for all of them.

    Returns:
        Seconds.
    """
    running, waiting, late, service_sum_s = book
    load = running + waiting
    usual_s: Any = service_sum_s / np.maximum(load, 1.0)
    mean_service_s: Any = pick(load > 0.0, usual_s, service_s)
    in_time_s = _queue_wait_s(running, waiting - late, mean_service_s, cap)
    behind_all_s = _queue_wait_s(running, waiting, mean_service_s, cap)
    waits_s: Number = pick(in_time_s <= longest_s, in_time_s, behind_all_s)
    return waits_s


def queued_usd(bid_usd: Number, waits_s: Number, service_s: Number) -> Number:
    """By which price are pools compared? The bid, with a surcharge in proportion to the wait.

    A queue says that the pool is scarcer than the plan's bid price knows: a wait as long as the
    step itself doubles the price.
    """
    surcharged: Any = bid_usd * (1.0 + waits_s / np.maximum(service_s, _SHORTEST_S))
    bid: Number = surcharged
    return bid


def queued_use_s(
    curve: tuple[float, float, float, float, float],
    tokens: tuple[float, float],
    book: tuple[float, float, float, float],
    correction: float,
) -> float:
    """How much replica time does an LLM step take, dearer in proportion to its wait?

    Args:
        curve: `ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, concurrency_cap`.
        tokens: Uncached input and output.
        book: Steps that run and wait on the replica, and their service times and `prefill_share_s`
            together, in s.
        correction: Measured over predicted service time.

    Returns:
        Seconds.
    """
    floor_s, per_token_s, base_s, slope_s, cap = curve
    uncached, output = tokens
    running, waiting, service_sum_s, share_sum_s = book
    used_s = llm_used_s(curve, uncached, output)
    if running < cap:
        return used_s
    waits_s = (waiting + 1.0) * service_sum_s / (running + waiting) / cap
    gap_s = shared_itl_s(base_s, slope_s, cap, share_sum_s / (running + waiting))
    service_s = (floor_s + per_token_s * uncached + output * gap_s) * correction
    return used_s * (1.0 + waits_s / max(service_s, _SHORTEST_S))


def displaced_tokens(live_tokens: float, kv_tokens: float, new_tokens: float) -> float:
    """How much of open tasks' contexts must a replica forget for a step, to compute it anew later?

    Every context of an open task will be asked for again, those of ended tasks never: as long as
    memory holds all that is open, what is forgotten is worthless.

    Args:
        live_tokens: Contexts of open tasks there.
        kv_tokens: Its memory; infinite where nobody knows.
        new_tokens: Prompt tokens that it does not hold, and the answer.

    Returns:
        Tokens, never more than the step brings.

    >>> displaced_tokens(900.0, 1000.0, 300.0), displaced_tokens(900.0, math.inf, 300.0)
    (200.0, 0.0)
    """
    return min(max(live_tokens + new_tokens - kv_tokens, 0.0), new_tokens)


def cache_to_live_s(per_token_s: float, input_tokens: float, cap: float) -> float:
    """For how long is a task's cache worth its place?

    Held, a context takes one of `cap` places; computed anew, it takes the whole replica for its
    prefill: so it pays to hold it for `cap` times the prefill.

    Args:
        per_token_s: Seconds of prefill per token.
        input_tokens: Prompt of the task's next call.
        cap: Steps that run at once on the replica.

    Returns:
        Seconds since the task's last call.
    """
    return per_token_s * input_tokens * cap


def within_share_s(
    left_s: float, remaining_s: float, remaining_known: bool, least_s: float
) -> float:
    """How long may this step take, and leave the later steps of its task their part of the slack?

    Equal flexibility (Kao and Garcia-Molina, IEEE TPDS 8(12), 1997): slack is shared among the
    steps in proportion to their length. It is spent by waiting and by slow hardware alike, so both
    count: what is shared is the time beyond the fastest pool's, had it no queue. What a step does
    not use is there for the next ones, when more is known of the task.

    Args:
        left_s: Seconds to the deadline; infinite without one.
        remaining_s: Expected seconds from the end of the step to the end of its task.
        remaining_known: Whether a task of the agent has ended, so that this means something.
        least_s: From start to end in the fastest pool that can run it; infinite where none can.

    Returns:
        Seconds from now to its end; infinite without a deadline.
    """
    if math.isinf(left_s) or math.isinf(least_s):
        return math.inf
    slack_s = left_s - remaining_s - least_s
    share = 1.0 / _USUAL_STEPS
    if remaining_known:
        share = least_s / max(least_s + remaining_s, _SHORTEST_S)
    return least_s + max(0.0, slack_s) * share


def begun_by_s(longest_s: float, alone_s: float) -> float:
    """How long may the first step of a task take that is to be refused rather than to end late?

    It may wait for half of what it may take at most beyond its own time: its later steps will wait,
    too, and where each waits for its whole share nothing is left for what nobody foresaw. A pool in
    which it need not wait is never ruled out by this, however slow.

    Args:
        longest_s: `within_share_s`.
        alone_s: From start to end in the pool, had that no queue.

    Returns:
        Seconds from now to its end.

    >>> begun_by_s(5.0, 1.0), begun_by_s(5.0, 7.0)
    (3.0, 7.0)
    """
    return alone_s + max(0.0, 0.5 * (longest_s - alone_s))


def cheapest_in_time(
    allowed: Column,
    patient: Column,
    slack_s: Column,
    finish_s: Column,
    bid_usd: Column,
    names: Column,
) -> int:
    """Which is the cheapest pool that still meets the deadline?

    Only pools where the end is within the step's share of the slack are compared; where it is
    beyond in every pool, the earliest end counts. Among pools that are as cheap to within 5 %,
    the one that finishes first.

    Args:
        allowed: Whether the pool can run the step inside its budget.
        patient: Whether the end there is within the step's share of the slack.
        slack_s: Slack after the step.
        finish_s: Seconds to its end.
        bid_usd: Price by which pools are compared.
        names: What breaks ties: the pools' names, or their ranks among them.

    Returns:
        Number of the pool, or -1 if none meets the deadline.
    """
    earliest, chosen, least_usd = -1, -1, np.inf
    for pool in range(len(allowed)):
        if allowed[pool] and slack_s[pool] >= 0.0:
            if earliest < 0 or finish_s[pool] < finish_s[earliest]:
                earliest = pool
            if patient[pool] and bid_usd[pool] < least_usd:
                least_usd = bid_usd[pool]
    for pool in range(len(allowed)):
        if (
            allowed[pool]
            and slack_s[pool] >= 0.0
            and patient[pool]
            and bid_usd[pool] <= least_usd * (1.0 + TIE_FRAC)
            and (chosen < 0 or precedes(pool, chosen, finish_s, bid_usd, names))
        ):
            chosen = pool
    return chosen if chosen >= 0 else earliest


def least_late(allowed: Column, slack_s: Column, names: Column) -> int:
    """Which allowed pool misses the deadline by the least? Its number, or -1 if none is allowed."""
    chosen = -1
    for pool in range(len(allowed)):
        if not allowed[pool]:
            continue
        if (
            chosen < 0
            or slack_s[pool] > slack_s[chosen]
            or (slack_s[pool] == slack_s[chosen] and names[pool] < names[chosen])
        ):
            chosen = pool
    return chosen


def precedes(pool: int, other: int, first: Column, second: Column, names: Column) -> bool:
    """Is a pool before another by two keys, then by name?"""
    if first[pool] != first[other]:
        return bool(first[pool] < first[other])
    if second[pool] != second[other]:
        return bool(second[pool] < second[other])
    return bool(names[pool] < names[other])
