"""One simulated replica: streams and tools that run on it, and the queue in front.

The counterpart of `steelyard.sim.replica`, `llm_part` and `tool_part`, phase by phase.
"""

import math

from steelyard.perf.predict import itl_s
from steelyard.placement.queue import LATE_SHARE
from steelyard.sim.compiled.heaps import attain, join, pop, pop_due, push, set_rate
from steelyard.sim.compiled.heaps import shared_next_s as _shared_next_s
from steelyard.sim.compiled.layout import (
    COMPUTED,
    COMPUTING,
    FIRST_TOKEN,
    NONE,
    PREFILLING,
    STARTS,
    WAITS,
    World,
)

# The classes of those that wait.
BEGUN, NEW, GIVING_WAY, LATE = 0, 1, 2, 3
# An infinite pace would make 0 * inf of a stream that ends at once.
_SHORTEST_GAP_S = 1e-12


def queue(world: World, replica: int, attempt: int) -> None:
    """Let an attempt wait in the order of `key_s`, after those with the same."""
    machine, one = world.machines[replica], world.attempts[attempt]
    one["came"] = machine["queued"]
    machine["queued"] += 1
    kind = BEGUN
    if world.steps[one["step"]]["blockers"] == 0:
        kind = GIVING_WAY if one["late"] else NEW
    _line_up_waiting(world, replica, attempt, kind)


def _line_up_waiting(world: World, replica: int, attempt: int, kind: int) -> None:
    """Put an attempt into the queue of a class; the late ones keep the order of coming there."""
    machine, new = world.machines[replica], world.attempts[attempt]
    if kind == LATE and machine["queue_head"][LATE] == NONE:
        machine["late_since_s"] = world.clock[0]["now_s"]
    before = machine["queue_tail"][kind]
    if kind != LATE:
        while before != NONE and world.attempts[before]["key_s"] > new["key_s"]:
            before = world.attempts[before]["previous"]
    after = machine["queue_head"][kind] if before == NONE else world.attempts[before]["next"]
    new["previous"], new["next"] = before, after
    if before == NONE:
        machine["queue_head"][kind] = attempt
    else:
        world.attempts[before]["next"] = attempt
    if after == NONE:
        machine["queue_tail"][kind] = attempt
    else:
        world.attempts[after]["previous"] = attempt


def _take_first(world: World, replica: int, kind: int) -> None:
    """Take the head out of the queue of a class."""
    machine = world.machines[replica]
    following = world.attempts[machine["queue_head"][kind]]["next"]
    machine["queue_head"][kind] = following
    if following == NONE:
        machine["queue_tail"][kind] = NONE
    else:
        world.attempts[following]["previous"] = NONE


def _next_class(world: World, replica: int) -> int:
    """Whose turn is it, as in `steelyard.placement.queue`? -1 when nobody waits."""
    machine = world.machines[replica]
    now_s = world.clock[0]["now_s"]
    for kind in (BEGUN, NEW, GIVING_WAY):
        head = machine["queue_head"][kind]
        while head != NONE and _is_given_up(world, replica, head, now_s):
            _take_first(world, replica, kind)
            _line_up_waiting(world, replica, head, LATE)
            head = machine["queue_head"][kind]
    late_waits = machine["queue_head"][LATE] != NONE
    if late_waits and machine["since_late"] >= LATE_SHARE - 1:
        return LATE
    begun, new = machine["queue_head"][BEGUN], machine["queue_head"][NEW]
    both = begun != NONE and new != NONE  # noqa: PLR1714 - a kernel
    if both and not late_waits and _is_before(world, new, begun):
        return NEW
    for kind in (BEGUN, NEW, GIVING_WAY):
        if machine["queue_head"][kind] != NONE:
            return kind
    return LATE if late_waits else NONE


def _is_given_up(world: World, replica: int, attempt: int, now_s: float) -> bool:
    machine, one = world.machines[replica], world.attempts[attempt]
    if one["late_after_s"] < now_s:
        return True
    if one["spare_until_s"] >= now_s or machine["queue_head"][LATE] == NONE:
        return False
    return bool(now_s - machine["late_since_s"] > one["whole_s"])


def _is_before(world: World, attempt: int, other: int) -> bool:
    one, two = world.attempts[attempt], world.attempts[other]
    if one["key_s"] != two["key_s"]:
        return bool(one["key_s"] < two["key_s"])
    return bool(one["came"] < two["came"])


def _take_out(world: World, replica: int, kind: int) -> None:
    """Let the head of a class go, and count it."""
    machine = world.machines[replica]
    _take_first(world, replica, kind)
    if kind == LATE:
        machine["since_late"] = 0
    elif machine["queue_head"][LATE] != NONE:
        machine["since_late"] += 1


def take_ready(world: World, replica: int) -> int:
    """Take the most urgent attempt out of the queue if there is room for it; else -1."""
    machine = world.machines[replica]
    kind = _next_class(world, replica)
    if kind == NONE:
        return NONE
    attempt = machine["queue_head"][kind]
    pool = world.pools[machine["pool"]]
    if not machine["active"] < pool["cap"]:
        return NONE
    if pool["model"] == NONE and machine["active"] > 0:
        needed = world.steps[world.attempts[attempt]["step"]]["memory_bytes"]
        if machine["memory_bytes"] + needed > pool["memory_bytes"]:
            return NONE
    _take_out(world, replica, kind)
    return int(attempt)


def begin(world: World, replica: int, attempt: int) -> None:
    """Give an attempt a place."""
    machine, one = world.machines[replica], world.attempts[attempt]
    pool, step = world.pools[machine["pool"]], world.steps[one["step"]]
    now_s = world.clock[0]["now_s"]
    one["started_s"] = now_s
    machine["active"] += 1
    if pool["model"] == NONE:
        one["left"] = step["cpu_s"] * one["slowness"]
        machine["memory_bytes"] += step["memory_bytes"]
        one["phase"] = STARTS
        _delay(world, replica, now_s + pool["start_s"] * one["slowness"], attempt)
    else:
        one["left"] = step["output"] * one["slowness"]
        floor_s = pool["floor_s"]
        if pool["by_token"]:
            floor_s += _uncached(world, attempt) * pool["per_token_s"]
        _delay(world, replica, now_s + floor_s * one["slowness"], attempt)


def next_s(world: World, replica: int) -> float:
    """When does something happen here next? Infinite when nothing runs."""
    machine = world.machines[replica]
    soonest_s = _shared_next_s(world, replica)
    if machine["delays_n"] > 0:
        soonest_s = min(soonest_s, world.delays[machine["places"]]["key"])
    return float(min(soonest_s, machine["prefill_end_s"]))


def advance(world: World, replica: int) -> int:
    """Let phases end that end by now; returns how many attempts in `world.batch` have ended."""
    machine = world.machines[replica]
    if world.pools[machine["pool"]]["model"] == NONE:
        ended = _advance_tools(world, replica)
    else:
        ended = _advance_streams(world, replica)
    machine["active"] -= ended
    return ended


def _advance_streams(world: World, replica: int) -> int:
    machine = world.machines[replica]
    now_s = world.clock[0]["now_s"]
    ended = pop_due(world, replica, now_s, 0)
    while machine["delays_n"] > 0 and world.delays[machine["places"]]["key"] <= now_s:
        attempt = pop(world.delays, machine["places"], machine["delays_n"])
        machine["delays_n"] -= 1
        _line_up(world, replica, attempt)
    while True:
        if machine["prefilling"] == NONE and machine["prefill_head"] != NONE:
            _begin_prefill(world, replica)
        if machine["prefilling"] == NONE or machine["prefill_end_s"] > now_s:
            break
        _end_prefill(world, replica)
    ended = pop_due(world, replica, now_s, ended)
    for at in range(ended):
        world.attempts[world.batch[at]]["left"] = 0.0
    pool = world.pools[machine["pool"]]
    streams = float(machine["active"] - ended)
    gap_s = itl_s(pool["itl_base_s"], pool["itl_slope_s"], streams)
    rate = 0.0 if machine["prefilling"] != NONE else 1.0 / max(gap_s, _SHORTEST_GAP_S)
    set_rate(world, replica, now_s, rate)
    return ended


def _line_up(world: World, replica: int, attempt: int) -> None:
    machine = world.machines[replica]
    world.attempts[attempt]["next"] = NONE
    if machine["prefill_tail"] == NONE:
        machine["prefill_head"] = attempt
    else:
        world.attempts[machine["prefill_tail"]]["next"] = attempt
    machine["prefill_tail"] = attempt


def _begin_prefill(world: World, replica: int) -> None:
    machine = world.machines[replica]
    attempt = machine["prefill_head"]
    one = world.attempts[attempt]
    machine["prefill_head"] = one["next"]
    if one["next"] == NONE:
        machine["prefill_tail"] = NONE
    pool = world.pools[machine["pool"]]
    uncached = 0 if pool["by_token"] else _uncached(world, attempt)
    work_s = uncached * pool["per_token_s"] * one["slowness"]
    machine["prefilling"] = attempt
    machine["prefill_end_s"] = world.clock[0]["now_s"] + work_s
    world.counts[PREFILLING] += 1


def _uncached(world: World, attempt: int) -> int:
    one = world.attempts[attempt]
    return int(max(0, world.steps[one["step"]]["prompt"] - one["cached"]))


def _end_prefill(world: World, replica: int) -> None:
    machine = world.machines[replica]
    now_s = world.clock[0]["now_s"]
    attempt = machine["prefilling"]
    world.attempts[attempt]["first_s"] = now_s
    join(world, replica, now_s, attempt, world.attempts[attempt]["left"])
    machine["prefilling"] = NONE
    machine["prefill_end_s"] = math.inf
    world.counts[FIRST_TOKEN] += 1


def _advance_tools(world: World, replica: int) -> int:
    machine = world.machines[replica]
    pool = world.pools[machine["pool"]]
    now_s = world.clock[0]["now_s"]
    ended = 0
    _end_computing(world, replica, ended)
    while machine["delays_n"] > 0 and world.delays[machine["places"]]["key"] <= now_s:
        attempt = pop(world.delays, machine["places"], machine["delays_n"])
        machine["delays_n"] -= 1
        one = world.attempts[attempt]
        if one["phase"] == STARTS:
            join(world, replica, now_s, attempt, one["left"])
            world.counts[COMPUTING] += 1
            _end_computing(world, replica, ended)
        else:
            world.batch[ended] = attempt
            ended += 1
            machine["memory_bytes"] -= world.steps[one["step"]]["memory_bytes"]
    runnable = machine["shared_n"]
    share = min(1.0, pool["cores"] / runnable) if runnable > 0 else 0.0
    set_rate(world, replica, now_s, pool["speed"] * share)
    return ended


def _end_computing(world: World, replica: int, kept: int) -> None:
    """Let tools that have computed wait; `world.batch` is used beyond the first `kept`."""
    now_s = world.clock[0]["now_s"]
    computed = pop_due(world, replica, now_s, kept)
    for at in range(kept, computed):
        attempt = world.batch[at]
        one = world.attempts[attempt]
        one["left"] = 0.0
        one["phase"] = WAITS
        gap_s = world.steps[one["step"]]["wait_s"] * one["slowness"]
        _delay(world, replica, now_s + gap_s, attempt)
        world.counts[COMPUTED] += 1


def _delay(world: World, replica: int, end_s: float, attempt: int) -> None:
    machine = world.machines[replica]
    machine["sequence"] += 1
    tag = (machine["sequence"], attempt)
    push(world.delays, machine["places"], machine["delays_n"], end_s, tag)
    machine["delays_n"] += 1


def drain(world: World, replica: int, lost_n: int) -> int:
    """Move all that runs or waits to `world.batch`, as the loss of the machine does.

    Args:
        world: The world.
        replica: The replica.
        lost_n: How many the batch holds already.

    Returns:
        How many it holds then.
    """
    machine = world.machines[replica]
    lost_n = _drain_heap(world, replica, lost_n, shared=False)
    while machine["prefill_head"] != NONE:
        world.batch[lost_n] = machine["prefill_head"]
        machine["prefill_head"] = world.attempts[machine["prefill_head"]]["next"]
        lost_n += 1
    if machine["prefilling"] != NONE:
        world.batch[lost_n] = machine["prefilling"]
        lost_n += 1
    attain(world, replica, world.clock[0]["now_s"])
    lost_n = _drain_heap(world, replica, lost_n, shared=True)
    kind = _next_class(world, replica)
    while kind != NONE:
        world.batch[lost_n] = machine["queue_head"][kind]
        _take_out(world, replica, kind)
        kind = _next_class(world, replica)
        lost_n += 1
    machine["prefilling"] = machine["prefill_tail"] = NONE
    machine["prefill_end_s"] = math.inf
    machine["shared_n"] = machine["delays_n"] = machine["active"] = 0
    machine["memory_bytes"] = 0.0
    machine["alarm_s"] = math.inf
    return lost_n


def _drain_heap(world: World, replica: int, lost_n: int, shared: bool) -> int:
    """Move a heap to `world.batch`, in the order of entering."""
    machine = world.machines[replica]
    heap = world.shared if shared else world.delays
    count = machine["shared_n"] if shared else machine["delays_n"]
    base = machine["places"]
    for at in range(count):
        first = at
        for other in range(at + 1, count):
            if heap[base + other]["sequence"] < heap[base + first]["sequence"]:
                first = other
        attempt, key = heap[base + first]["attempt"], heap[base + first]["key"]
        heap[base + first] = heap[base + at]
        if shared:
            world.attempts[attempt]["left"] = max(0.0, key - machine["attained"])
        world.batch[lost_n] = attempt
        lost_n += 1
    return lost_n
