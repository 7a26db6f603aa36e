"""Small heaps, one per replica, laid end to end in one array; and work that goes on at one pace.

The counterpart of `steelyard.sim.sharing`: the same virtual time, the same order of ties.
"""

import math

from steelyard.sim.compiled.layout import Records, World


def push(heap: Records, base: int, count: int, key: float, tag: tuple[int, int]) -> None:
    """Put a member into the heap that begins at `base` and holds `count`.

    Args:
        heap: All heaps.
        base: Where this one begins.
        count: How many it holds.
        key: By what it is ordered.
        tag: Its number in order of entering, which breaks ties, and its attempt.
    """
    at = count
    while at > 0:
        parent = (at - 1) >> 1
        # A new member has the highest number, so equal keys stay above it.
        if heap[base + parent]["key"] <= key:
            break
        heap[base + at] = heap[base + parent]
        at = parent
    member = heap[base + at]
    member["key"] = key
    member["sequence"] = tag[0]
    member["attempt"] = tag[1]


def pop(heap: Records, base: int, count: int) -> int:
    """Take the first member out of the heap at `base` that holds `count`; returns its attempt."""
    attempt = heap[base]["attempt"]
    last = heap[base + count - 1]
    key, sequence, moved = last["key"], last["sequence"], last["attempt"]
    count -= 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and _is_before(heap, base + child + 1, base + child):
            child += 1
        under = heap[base + child]
        if under["key"] > key or (under["key"] == key and under["sequence"] > sequence):
            break
        heap[base + at] = heap[base + child]
        at = child
    member = heap[base + at]
    member["key"] = key
    member["sequence"] = sequence
    member["attempt"] = moved
    return int(attempt)


def _is_before(heap: Records, one: int, other: int) -> bool:
    a, b = heap[one], heap[other]
    return bool(a["key"] < b["key"] or (a["key"] == b["key"] and a["sequence"] < b["sequence"]))


def shared_next_s(world: World, replica: int) -> float:
    """When does the next member that shares the pace end? Infinite when none will."""
    machine = world.machines[replica]
    if machine["shared_n"] == 0:
        return math.inf
    return due_s(world, replica, world.shared[machine["places"]]["key"])


def due_s(world: World, replica: int, mark: float) -> float:
    """When is a mark of attained work reached?"""
    machine = world.machines[replica]
    if mark <= machine["attained"]:
        return float(machine["at_s"])
    if machine["rate"] > 0.0:
        return float(machine["at_s"] + (mark - machine["attained"]) / machine["rate"])
    return math.inf


def attain(world: World, replica: int, now_s: float) -> None:
    """Let everybody work up to now."""
    machine = world.machines[replica]
    machine["attained"] += (now_s - machine["at_s"]) * machine["rate"]
    machine["at_s"] = now_s


def join(world: World, replica: int, now_s: float, attempt: int, work: float) -> None:
    """Let an attempt share the pace until it has done its work."""
    machine = world.machines[replica]
    if machine["shared_n"] == 0:
        machine["attained"] = 0.0
    attain(world, replica, now_s)
    machine["sequence"] += 1
    key = machine["attained"] + work
    push(world.shared, machine["places"], machine["shared_n"], key, (machine["sequence"], attempt))
    machine["shared_n"] += 1


def set_rate(world: World, replica: int, now_s: float, rate: float) -> None:
    """Change the pace from now on."""
    machine = world.machines[replica]
    if rate != machine["rate"]:
        attain(world, replica, now_s)
        machine["rate"] = rate


def pop_due(world: World, replica: int, now_s: float, ended_n: int) -> int:
    """Move those that have reached their marks to `world.batch`; returns how many it holds then."""
    machine = world.machines[replica]
    mark, before = machine["attained"], ended_n
    while machine["shared_n"] > 0:
        first = world.shared[machine["places"]]["key"]
        if not due_s(world, replica, first) <= now_s:
            break
        mark = first
        world.batch[ended_n] = pop(world.shared, machine["places"], machine["shared_n"])
        machine["shared_n"] -= 1
        ended_n += 1
    if ended_n > before:
        attain(world, replica, now_s)
        machine["attained"] = max(machine["attained"], mark)
    return ended_n
