"""Where does a step go? The scoring of `steelyard.placement` on the arrays of the compiled path.

Only the search for a candidate replica differs: prefixes are looked up by task, and two replicas
are drawn without a list of all of them, so that a decision does not depend on the fleet's size.
"""

import math
from typing import Any

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.perf.cost import llm_used_s, priced_tokens_usd, tool_used_s
from steelyard.perf.predict import prefill_share_s
from steelyard.placement.scoring import (
    SHORT_PROMPT_TOKENS,
    Traits,
    by_cost,
    by_cpu,
    by_draw,
    by_finish,
    by_first_draw,
    by_gpu,
    by_home,
    by_normalised_load,
    by_prefix,
    by_spare_slack,
    cache_to_live_s,
    cheapest_in_time,
    first_ranked,
    least_late,
    llm_times_s,
    queued_usd,
    queued_use_s,
    two_of,
    wait_s,
    within_share_s,
)
from steelyard.sim.compiled.books import remaining_s
from steelyard.sim.compiled.layout import LLM, NONE, World

# Numbers of the policies; 0 is the one that is not a ranking.
POLICIES = (
    "cheapest_feasible",
    "least_loaded_gpu",
    "all_cpu",
    "cheapest_first",
    "join_shortest_of_two",
    "round_robin",
    "normalised_least_load",
    "prefix_affinity",
    "earliest_deadline",
    "just_enough",
    "program_fcfs",
    "program_least_attained",
)
_GPU, _CPU, _COST, _TWO, _ONE, _LOAD, _PREFIX, _FINISH, _SPARE = range(1, 10)
PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED = 10, 11


def choose(world: World, task: int, step: int, number: int) -> int:
    """Which pool takes a step?

    Args:
        world: The world; `world.replica` and the predictions are filled in.
        task: Slot of the task.
        step: Number of the step among all templates' steps.
        number: Number of the attempt.

    Returns:
        Number of the pool; -1 when the step is refused for its deadline or for lack of a pool,
        -2 when it is for its budget.
    """
    _find_candidates(world, task, step, number)
    can_run = _score(world, task, step)
    if world.clock[0]["policy"] == 0:
        chosen = cheapest_in_time(
            world.allowed, world.patient, world.slack_s, world.finish_s, world.bid_usd, world.names
        )
        if chosen < 0 and not world.clock[0]["refuses"]:
            chosen = least_late(world.allowed, world.slack_s, world.names)
    else:
        chosen = first_ranked(world.allowed, world.first_key, world.second_key, world.names)
    if chosen < 0 and can_run and not _any_allowed(world):
        return -2
    return chosen


def _any_allowed(world: World) -> bool:
    # A kernel: Numba knows no generators, so there is no any() here.
    for pool in range(len(world.pools)):  # noqa: SIM110
        if world.allowed[pool]:
            return True
    return False


def _find_candidates(world: World, task: int, step: int, number: int) -> None:
    policy = world.clock[0]["policy"]
    key = int(world.tasks[task]["key"])
    salt = int(world.steps[step]["step_id"]) * 64 + int(number)
    if policy in (_TWO, _ONE):
        _draw_over_fleet(world, step, key, salt)
        _look_for_prefix(world, task, step, least=True)
        return
    is_program = policy in (PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED)
    least = is_program or policy in (_GPU, _CPU, _LOAD)
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
        world.replica[pool] = _less_loaded(world, one["first"] + first, one["first"] + second)
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


def _load(world: World, replica: int) -> int:
    book = world.book[replica]
    return int(book["running"] + book["waiting"])


def _less_loaded(world: World, one: int, other: int) -> int:
    one_load, other_load = _load(world, one), _load(world, other)
    if other_load < one_load or (other_load == one_load and other < one):
        return other
    return one


def _least_loaded(world: World, pool: int) -> int:
    one = world.pools[pool]
    best = int(one["first"])
    best_load = _load(world, best)
    for replica in range(best + 1, one["first"] + one["replicas"]):
        # Nothing beats the first idle one, so that a large pool is seldom read to its end.
        if best_load == 0:
            break
        load = _load(world, replica)
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
        if least or _load(world, replica) >= world.pools[pool]["cap"]:
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
    load, best_load = _load(world, replica), _load(world, best)
    return bool(load < best_load or (load == best_load and replica < best))


def _use_s(world: World, step: int, replica: int, cached: float) -> float:
    """`queued_use_s` of a step on one replica."""
    one, book = world.pools[world.machines[replica]["pool"]], world.book[replica]
    uncached = max(0.0, float(world.steps[step]["prompt"]) - cached)
    counts = (float(book["running"]), float(book["waiting"]))
    load = (counts[0], counts[1], book["service_sum_s"], book["share_sum_s"])
    tokens = (uncached, _expected_output(world, step))
    return float(queued_use_s(_curve(one), tokens, load, one["correction"]))


def share_s(world: World, pool: int, step: int) -> float:
    """`fleet.state._share_s`: prefill that a step brings to its replica per token."""
    one, what = world.pools[pool], world.steps[step]
    if what["kind"] != LLM or one["by_token"] != 0:
        return 0.0
    uncached = max(0.0, float(what["prompt"]) - world.cached[pool])
    return prefill_share_s(one["per_token_s"], uncached, _expected_output(world, step))


def _curve(pool: Any) -> tuple[float, float, float, float, float]:  # noqa: ANN401 - a record
    return (
        pool["floor_s"],
        pool["per_token_s"],
        pool["itl_base_s"],
        pool["itl_slope_s"],
        pool["cap"],
    )


def _expected_output(world: World, step: int) -> float:
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
    load, best_load = _load(world, replica), _load(world, best)
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
    if eligible < 2 or world.clock[0]["policy"] == _ONE:
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


def _score(world: World, task: int, step: int) -> bool:
    """Predict the step in each pool, and rank the pools; returns whether any can run it."""
    now_s = world.clock[0]["now_s"]
    after_s, known = remaining_s(world, step)
    left_s = world.tasks[task]["deadline_s"] - now_s
    money = world.tasks[task]
    left_usd = money["budget_usd"] - (money["spent_usd"] + money["reserved_usd"])
    policy = world.clock[0]["policy"]
    can_run = False
    least_s = least_alone_s = math.inf
    for pool in range(len(world.pools)):
        world.allowed[pool] = False
        if not _can_run(world, pool, step):
            continue
        can_run = True
        service_s = _predict(world, pool, step)
        finish_s = world.wait_s[pool] + service_s
        world.finish_s[pool] = finish_s
        least_s = min(least_s, service_s)
        # The same but for rounding; it is what a decision tells, and the reference learns from.
        least_alone_s = min(least_alone_s, finish_s - world.wait_s[pool])
        slack_s = left_s - after_s - finish_s
        world.slack_s[pool] = slack_s
        waits_s = world.wait_s[pool]
        world.bid_usd[pool] = queued_usd(world.bid_usd[pool], waits_s, service_s)
        something_left = left_usd > 0.0 or world.pools[pool]["rent"] == 0.0
        world.allowed[pool] = something_left and world.cost_usd[pool] <= left_usd
        if policy > 0:
            keys = _keys(policy, _traits(world, pool))
            world.first_key[pool], world.second_key[pool] = keys
    world.clock[0]["least_s"] = least_alone_s
    longest_s = within_share_s(left_s, after_s, known, least_s)
    for pool in range(len(world.pools)):
        world.patient[pool] = world.finish_s[pool] <= longest_s
    return can_run


def _can_run(world: World, pool: int, step: int) -> bool:
    one, what = world.pools[pool], world.steps[step]
    if world.replica[pool] < 0 or one["open_until_s"] > world.clock[0]["now_s"]:
        return False
    if what["kind"] == LLM:
        return bool(what["prompt"] < one["context_tokens"])
    estimate = world.estimates[what["estimate"]]
    usual = estimate["memory_bytes"] if estimate["tools"] > 0 else what["memory_bytes"]
    return bool(max(usual, what["memory_bytes"]) <= one["memory_bytes"])


def _predict(world: World, pool: int, step: int) -> float:
    """Fill in wait and costs in one pool; returns seconds of service."""
    one, what = world.pools[pool], world.steps[step]
    estimate = world.estimates[what["estimate"]]
    book = world.book[world.replica[pool]]
    if what["kind"] == LLM:
        uncached = max(float(what["prompt"]) - world.cached[pool], 0.0)
        output = _expected_output(world, step)
        curve = _curve(one)
        load = (float(book["running"]), float(book["waiting"]), book["share_sum_s"])
        _, service_s = llm_times_s(curve, one["correction"], uncached, output, load)
        used_h = llm_used_s(curve, uncached, output) / SECONDS_PER_HOUR
        prices = (one["usd_per_input"], one["usd_per_cached"], one["usd_per_output"])
        by_token_usd = priced_tokens_usd(prices, uncached, world.cached[pool], output)
        is_vendor = one["by_token"] != 0
        world.cost_usd[pool] = by_token_usd if is_vendor else used_h * one["rent"]
        world.bid_usd[pool] = by_token_usd if is_vendor else used_h * one["bid"]
    else:
        memory_bytes = what["memory_bytes"]
        if estimate["tools"] > 0:
            memory_bytes = estimate["memory_bytes"]
        service_s = one["start_s"] + estimate["cpu_s"] / one["speed"] + estimate["other_s"]
        room = (one["speed"], one["cores"], one["memory_bytes"])
        used_h = tool_used_s(room, estimate["cpu_s"], service_s, memory_bytes) / SECONDS_PER_HOUR
        world.cost_usd[pool] = used_h * one["rent"]
        world.bid_usd[pool] = used_h * one["bid"]
    counts = (float(book["running"]), float(book["waiting"]), book["service_sum_s"])
    world.wait_s[pool] = wait_s(counts, service_s, one["cap"])
    return float(service_s)


def _traits(world: World, pool: int) -> Traits[float]:
    one = world.pools[pool]
    return Traits(
        one["off_gpu"],
        one["off_cpu"],
        world.first_key[pool],
        float(_load(world, world.replica[pool])),
        one["cap"],
        world.cached[pool],
        world.cost_usd[pool],
        world.finish_s[pool],
        world.slack_s[pool],
    )


def _keys(policy: int, traits: Traits[float]) -> tuple[float, float]:  # noqa: PLR0911
    """The ranking of a policy; one compiled engine holds them all."""
    if policy == _GPU:
        return by_gpu(traits)
    if policy == _CPU:
        return by_cpu(traits)
    if policy == _COST:
        return by_cost(traits)
    if policy == _TWO:
        return by_draw(traits)
    if policy == _ONE:
        return by_first_draw(traits)
    if policy == _LOAD:
        return by_normalised_load(traits)
    if policy == _PREFIX:
        return by_prefix(traits)
    if policy == _FINISH:
        return by_finish(traits)
    if policy == _SPARE:
        return by_spare_slack(traits)
    return by_home(traits)
