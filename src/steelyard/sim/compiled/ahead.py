"""Asking for memory before it is needed: what the alarms of the next moments will read.

In a large fleet nearly every read of a replica, an attempt or a task is a cache miss that takes as
long as some hundred instructions, and each tells where the next one lies. Buckets of the calendar
are known ahead, so each is gone through several times while it comes nearer: one time the processor
is asked for its entries, the next for the replicas that these name, then for what runs there, and
so on. Nothing here changes the world; entries that come later miss a round or two.
"""

from steelyard.placement.scoring import two_of
from steelyard.sim.compiled.layout import ALARM, CHUNK, LLM, NONE, WAITS, Records, World
from steelyard.sim.compiled.rankings import ONE, TWO

# Rounds of a bucket, in buckets ahead of the one that is opened.
CANDIDATES, TASKS, ATTEMPTS, HEAPS, REPLICAS, ENTRIES = range(6)
ARRIVALS_AHEAD = 8
# Members of a heap in a cache line.
_IN_A_LINE = 4


def ask_for(column: Records, at: int) -> None:
    """Ask for a record, its first two cache lines: in a compiled kernel a hint, else nothing."""


def ask_for_start(column: Records, at: int) -> None:
    """Ask for the first cache line of a record."""


def ask_ahead(world: World) -> None:
    """Let every bucket of the next ones advance by one round."""
    clock, mask = world.clock[0], len(world.bucket_head) - 1
    for ahead in range(ENTRIES + 1):
        at = (clock["bucket"] + ahead) & mask
        count, chunk = world.bucket_n[at], world.bucket_head[at]
        filled = (count - 1) % CHUNK + 1
        while count > 0:
            first = chunk * CHUNK
            _ask(world, first, first + filled, ahead)
            count -= filled
            filled = CHUNK
            chunk = world.chunk_next[chunk]


def _ask(world: World, first: int, end: int, ahead: int) -> None:
    """One round for a part of a bucket."""
    if ahead == ENTRIES:
        for at in range(first, end, 2):
            ask_for(world.entries, at)
        return
    for at in range(first, end):
        code = world.entries[at]["code"]
        if code & 3 != ALARM:
            continue
        replica = code >> 2
        if ahead == REPLICAS:
            ask_for(world.machines, replica)
        elif world.machines[replica]["alarm_s"] == world.entries[at]["t_s"]:
            if ahead == HEAPS:
                _ask_for_heaps(world, replica)
            else:
                _ask_for_due(world, replica, ahead)


def _ask_for_heaps(world: World, replica: int) -> None:
    machine = world.machines[replica]
    places = machine["places"]
    if machine["prefilling"] != NONE:
        ask_for(world.attempts, machine["prefilling"])
    if machine["shared_n"] > 0:
        ask_for(world.shared, places)
        if machine["shared_n"] > _IN_A_LINE:
            ask_for(world.shared, places + machine["shared_n"] - 1)
    if machine["delays_n"] > 0:
        ask_for(world.delays, places)
        if machine["delays_n"] > _IN_A_LINE:
            ask_for(world.delays, places + machine["delays_n"] - 1)


def _ask_for_due(world: World, replica: int, ahead: int) -> None:
    """Ask for the attempt that the alarm is about, for its task, for what the next step needs."""
    machine = world.machines[replica]
    alarm_s = machine["alarm_s"]
    if machine["prefill_end_s"] == alarm_s:
        return
    is_delay = machine["delays_n"] > 0 and world.delays[machine["places"]]["key"] == alarm_s
    if is_delay:
        attempt = world.delays[machine["places"]]["attempt"]
    elif machine["shared_n"] > 0:
        attempt = world.shared[machine["places"]]["attempt"]
    else:
        return
    if ahead == ATTEMPTS:
        ask_for(world.attempts, attempt)
        return
    one = world.attempts[attempt]
    is_llm = world.pools[machine["pool"]]["model"] != NONE
    if (is_delay and one["phase"] != WAITS) or (is_delay == is_llm):
        return
    if ahead == TASKS:
        ask_for(world.tasks, one["task"])
        base = one["task"] * world.clock[0]["stride"]
        ask_for(world.blockers, base)
        ask_for(world.held, base)
    else:
        _ask_for_next(world, one["task"], one["step"])


def _ask_for_next(world: World, task: int, step: int) -> None:
    """Ask for the replicas that the first step after this one may go to."""
    slot = world.tasks[task]
    base = task * world.clock[0]["stride"]
    ask_for(world.ended, base + slot["ended_n"])
    what = world.steps[step]
    if what["children"] == what["children_end"]:
        return
    following = world.templates[slot["template"]]["first"] + world.children[what["children"]]
    if world.steps[following]["kind"] == LLM:
        for at in range(base, base + slot["held_n"]):
            ask_for_start(world.machines, world.held[at]["replica"])
    _ask_for_candidates(world, slot["key"], following)


def ask_for_arrival(world: World, number: int) -> None:
    """Ask for the replicas that the first step of a task that is to arrive may go to."""
    if number < len(world.arrivals) and world.clock[0]["looks_ahead"]:
        arrival = world.arrivals[number]
        first = world.templates[arrival["template"]]["first"]
        _ask_for_candidates(world, arrival["key"], first)


def _ask_for_candidates(world: World, key: int, step: int) -> None:
    """As `candidates` draws replicas for the first attempt at a step."""
    what = world.steps[step]
    model = NONE
    if what["kind"] == LLM:
        model = what["model"]
    # A record's 32 bits do not hold what it is multiplied by.
    key, salt = int(key), int(what["step_id"]) * 64
    if world.clock[0]["policy"] in (ONE, TWO):
        _ask_for_drawn(world, key, salt, model)
        return
    for pool in range(len(world.pools)):
        one = world.pools[pool]
        if one["model"] == model and one["down"] == 0 and one["replicas"] > 0:
            first, second = two_of(key, salt, one["replicas"])
            ask_for_start(world.machines, one["first"] + first)
            ask_for_start(world.machines, one["first"] + second)


def _ask_for_drawn(world: World, key: int, salt: int, model: int) -> None:
    """As `candidates` draws over the fleet, but for pools that the breaker keeps out."""
    eligible = 0
    for pool in range(len(world.pools)):
        one = world.pools[pool]
        if one["model"] == model and one["down"] == 0:
            eligible += one["replicas"]
    if eligible == 0:
        return
    first, second = two_of(key, salt, eligible)
    for pool in range(len(world.pools)):
        one = world.pools[pool]
        if one["model"] == model and one["down"] == 0:
            if 0 <= first < one["replicas"]:
                ask_for_start(world.machines, one["first"] + first)
            if 0 <= second < one["replicas"]:
                ask_for_start(world.machines, one["first"] + second)
            first -= one["replicas"]
            second -= one["replicas"]
