"""Which replica of each pool would take the step? The counterpart of `placement.candidates`.

Prefixes are looked up by task, and two replicas are drawn without a list of all of them, so that a
decision does not depend on the fleet's size.
"""

from typing import Any

from steelyard.placement.scoring import (
    SHORT_PROMPT_TOKENS,
    cache_to_live_s,
    queued_use_s,
    two_of,
)
from steelyard.sim.compiled.ahead import ask_for
from steelyard.sim.compiled.layout import LLM, NONE, World
from steelyard.sim.compiled.rankings import (
    CPU,
    GPU,
    LOAD,
    ONE,
    PROGRAM_FCFS,
    PROGRAM_LEAST_ATTAINED,
    TWO,
)


def find_candidates(world: World, task: int, step: int, number: int) -> None:
    """Fill in `world.replica` and `world.cached`: the candidate of each pool, -1 where none is."""
    policy = world.clock[0]["policy"]
    key = int(world.tasks[task]["key"])
    salt = int(world.steps[step]["step_id"]) * 64 + int(number)
    if policy in (TWO, ONE):
        _draw_over_fleet(world, step, key, salt)
        _look_for_prefix(world, task, step, least=True)
        return
    is_program = policy in (PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED)
    least = is_program or policy in (GPU, CPU, LOAD)
    for pool in range(len(world.pools)):
        one = world.pools[pool]
        world.cached[pool] = 0.0
        world.replica[pool] = NONE
        world.second_key[pool] = 1.0
        if not _serves(world, pool, step) or one["down"] > 0 or one["replicas"] == 0:
            continue
        if least:
            world.replica[pool] = _least_loaded(world, pool)
            continue
        first, second = two_of(key, salt, one["replicas"])
        drawn = _less_loaded(world, one["first"] + first, one["first"] + second)
        world.replica[pool] = drawn
        # Wherever the step goes, it waits to start there first.
        ask_for(world.machines, drawn)
        ask_for(world.delays, world.machines[drawn]["places"])
        ask_for(world.shared, world.machines[drawn]["places"])
    if is_program:
        _stay_at_home(world, task, step)
    if policy == 0:
        _weigh_warm_and_cold(world, task, step)
    else:
        _look_for_prefix(world, task, step, least)


def _stay_at_home(world: World, task: int, step: int) -> None:
    """Put the replica of the task's last call first, where the policy keeps the call there."""
    for pool in range(len(world.pools)):
        world.first_key[pool] = 1.0
    slot, what = world.tasks[task], world.steps[step]
    home = slot["last_replica"]
    if home == NONE or what["kind"] != LLM:
        return
    pool = world.machines[home]["pool"]
    one = world.pools[pool]
    if one["down"] > 0:
        return
    if world.clock[0]["policy"] == PROGRAM_FCFS:
        to_live_s = cache_to_live_s(one["per_token_s"], float(what["prompt"]), one["cap"])
        stays = world.clock[0]["now_s"] - slot["last_end_s"] <= to_live_s
    else:
        stays = what["prompt"] > SHORT_PROMPT_TOKENS
    if stays and world.replica[pool] >= 0:
        world.replica[pool] = home
        world.first_key[pool] = 0.0


def _serves(world: World, pool: int, step: int) -> bool:
    one = world.steps[step]
    if one["kind"] == LLM:
        return bool(world.pools[pool]["model"] == one["model"])
    return bool(world.pools[pool]["model"] == NONE)


def load_of(world: World, replica: int) -> int:
    """Steps that run and wait on a replica."""
    book = world.machines[replica]
    return int(book["running"] + book["waiting"])


def _less_loaded(world: World, one: int, other: int) -> int:
    one_load, other_load = load_of(world, one), load_of(world, other)
    if other_load < one_load or (other_load == one_load and other < one):
        return other
    return one


def _least_loaded(world: World, pool: int) -> int:
    one = world.pools[pool]
    best = int(one["first"])
    end = best + one["replicas"]
    # Nothing beats the first idle one, and none before `idle_from` is idle.
    for replica in range(max(best, one["idle_from"]), end):
        if load_of(world, replica) == 0:
            one["idle_from"] = replica
            return int(replica)
    one["idle_from"] = end
    best_load = load_of(world, best)
    for replica in range(best + 1, end):
        load = load_of(world, replica)
        if load < best_load:
            best, best_load = replica, load
    return best


def _look_for_prefix(world: World, task: int, step: int, least: bool) -> None:
    """Prefer the replica below its cap that holds most of the prompt; ties by load, then index.

    Policies that take the least loaded replica only note what it holds.
    """
    base = task * world.clock[0]["stride"]
    sources = world.steps[step]["sources"]
    if world.steps[step]["kind"] != LLM:
        return
    for at in range(base, base + world.tasks[task]["held_n"]):
        held = world.held[at]
        replica = held["replica"]
        pool = world.machines[replica]["pool"]
        tokens = float(world.sources[sources + held["step"]])
        if tokens <= 0.0 or world.replica[pool] < 0 or held["epoch"] != world.pools[pool]["epoch"]:
            continue
        if least or load_of(world, replica) >= world.pools[pool]["cap"]:
            if world.replica[pool] == replica:
                world.cached[pool] = max(world.cached[pool], tokens)
        elif _is_warmer(world, pool, replica, tokens):
            world.replica[pool] = replica
            world.cached[pool] = tokens
            world.second_key[pool] = 0.0


def _weigh_warm_and_cold(world: World, task: int, step: int) -> None:
    """Prefer the replica that holds most of the prompt, unless its queue costs more than it saves.

    As `candidates.warm_or_cold`; the cold replicas have been drawn.
    """
    if world.steps[step]["kind"] != LLM:
        return
    _find_warmest(world, task, step)
    for pool in range(len(world.pools)):
        warm, tokens = world.warm[pool], world.warm_tokens[pool]
        if warm == NONE or warm == world.replica[pool]:
            continue
        cold_use_s = _use_s(world, step, world.replica[pool], world.cached[pool])
        if _use_s(world, step, warm, tokens) <= cold_use_s:
            world.replica[pool] = warm
            world.cached[pool] = tokens


def _find_warmest(world: World, task: int, step: int) -> None:
    """Which replica of each pool holds most of the prompt, and what do the cold ones hold?"""
    base = task * world.clock[0]["stride"]
    sources = world.steps[step]["sources"]
    for pool in range(len(world.pools)):
        world.warm[pool] = NONE
        world.warm_tokens[pool] = 0.0
    for at in range(base, base + world.tasks[task]["held_n"]):
        held = world.held[at]
        replica = held["replica"]
        pool = world.machines[replica]["pool"]
        tokens = float(world.sources[sources + held["step"]])
        if tokens <= 0.0 or world.replica[pool] < 0 or held["epoch"] != world.pools[pool]["epoch"]:
            continue
        if world.replica[pool] == replica:
            world.cached[pool] = max(world.cached[pool], tokens)
        if _is_warmest(world, pool, replica, tokens):
            world.warm[pool] = replica
            world.warm_tokens[pool] = tokens


def _is_warmest(world: World, pool: int, replica: int, tokens: float) -> bool:
    if tokens != world.warm_tokens[pool]:
        return bool(tokens > world.warm_tokens[pool])
    best = world.warm[pool]
    load, best_load = load_of(world, replica), load_of(world, best)
    return bool(load < best_load or (load == best_load and replica < best))


def _use_s(world: World, step: int, replica: int, cached: float) -> float:
    """`queued_use_s` of a step on one replica."""
    one, book = world.pools[world.machines[replica]["pool"]], world.machines[replica]
    uncached = max(0.0, float(world.steps[step]["prompt"]) - cached)
    counts = (float(book["running"]), float(book["waiting"]))
    load = (counts[0], counts[1], book["service_sum_s"], book["share_sum_s"])
    tokens = (uncached, expected_output(world, step))
    return float(queued_use_s(curve_of(one), tokens, load, one["correction"]))


def curve_of(pool: Any) -> tuple[float, float, float, float, float]:  # noqa: ANN401 - a record
    """Its `ttft_floor_s, prefill_s_per_token, itl_base_s, itl_slope_s, concurrency_cap`."""
    return (
        pool["floor_s"],
        pool["per_token_s"],
        pool["itl_base_s"],
        pool["itl_slope_s"],
        pool["cap"],
    )


def expected_output(world: World, step: int) -> float:
    """Tokens that the step's answer is expected to have."""
    what = world.steps[step]
    estimate = world.estimates[what["estimate"]]
    output = float(what["max_output"])
    if estimate["outputs"] > 0:
        output = min(estimate["output"], output)
    return output


def _is_warmer(world: World, pool: int, replica: int, tokens: float) -> bool:
    """Is a replica with these tokens to be preferred to the candidate so far?"""
    if world.second_key[pool] > 0.0:
        return True
    if tokens != world.cached[pool]:
        return bool(tokens > world.cached[pool])
    best = world.replica[pool]
    load, best_load = load_of(world, replica), load_of(world, best)
    return bool(load < best_load or (load == best_load and replica < best))


def _draw_over_fleet(world: World, step: int, key: int, salt: int) -> None:
    """Draw one or two replicas over the fleet; pools without one of them offer the least loaded."""
    eligible = 0
    for pool in range(len(world.pools)):
        world.cached[pool] = 0.0
        world.replica[pool] = NONE
        world.first_key[pool] = 1.0
        if _is_open(world, pool, step):
            eligible += world.pools[pool]["replicas"]
    first, second = 0, 0
    if eligible > 0:
        first, second = two_of(key, salt, eligible)
    if eligible < 2 or world.clock[0]["policy"] == ONE:
        second = first
    passed = 0
    for pool in range(len(world.pools)):
        if not _serves(world, pool, step) or world.pools[pool]["down"] > 0:
            continue
        if _is_open(world, pool, step):
            _take_drawn(world, pool, first - passed, second - passed)
            passed += world.pools[pool]["replicas"]
        # The others count as well: for what a step takes at least, or where these cannot run it.
        if world.replica[pool] == NONE and world.pools[pool]["replicas"] > 0:
            world.replica[pool] = _least_loaded(world, pool)


def _is_open(world: World, pool: int, step: int) -> bool:
    one = world.pools[pool]
    is_up = one["down"] == 0 and one["open_until_s"] <= world.clock[0]["now_s"]
    return bool(is_up and _serves(world, pool, step))


def _take_drawn(world: World, pool: int, first: int, second: int) -> None:
    one = world.pools[pool]
    has_first = 0 <= first < one["replicas"]
    has_second = 0 <= second < one["replicas"]
    if has_first and has_second:
        world.replica[pool] = _less_loaded(world, one["first"] + first, one["first"] + second)
    elif has_first:
        world.replica[pool] = one["first"] + first
    elif has_second:
        world.replica[pool] = one["first"] + second
    if has_first or has_second:
        world.first_key[pool] = 0.0
