"""Where does a step go? The scoring of `steelyard.placement` on the arrays of the compiled path."""

import math

from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.perf.cost import llm_used_s, priced_tokens_usd, tool_used_s
from steelyard.perf.predict import prefill_share_s
from steelyard.placement.queue import PATIENCE_S, kept_slack_s
from steelyard.placement.ranks import (
    Traits,
    first_ranked,
)
from steelyard.placement.scoring import (
    begun_by_s,
    cheapest_in_time,
    grace_s,
    least_late,
    llm_times_s,
    queued_usd,
    wait_s,
    within_share_s,
)
from steelyard.sim.compiled.books import remaining_s
from steelyard.sim.compiled.candidates import (
    curve_of,
    expected_output,
    find_candidates,
    load_of,
)
from steelyard.sim.compiled.layout import LLM, World
from steelyard.sim.compiled.rankings import PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED, keys


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
    find_candidates(world, task, step, number)
    can_run = _score(world, task, step)
    if world.clock[0]["policy"] == 0:
        chosen = cheapest_in_time(
            world.allowed, world.patient, world.slack_s, world.finish_s, world.bid_usd, world.names
        )
        if chosen < 0:
            chosen = least_late(world.allowed, world.slack_s, world.names)
            if chosen >= 0 and world.clock[0]["refuses"] and not _goes_on(world, step, chosen):
                chosen = -1
    else:
        chosen = first_ranked(world.allowed, world.first_key, world.second_key, world.names)
    if chosen < 0 and can_run and not _any_allowed(world):
        return -2
    return chosen


def _goes_on(world: World, step: int, pool: int) -> bool:
    begins = world.steps[step]["blockers"] == 0
    at_start_s = world.slack_s[pool] + world.wait_s[pool]
    return bool(not begins and at_start_s + world.grace_s[pool] >= 0.0)


def _any_allowed(world: World) -> bool:
    # A kernel: Numba knows no generators, so there is no any() here.
    for pool in range(len(world.pools)):  # noqa: SIM110
        if world.allowed[pool]:
            return True
    return False


def share_s(world: World, pool: int, step: int) -> float:
    """`fleet.state._share_s`: prefill that a step brings to its replica per token."""
    one, what = world.pools[pool], world.steps[step]
    if what["kind"] != LLM or one["by_token"] != 0:
        return 0.0
    uncached = max(0.0, float(what["prompt"]) - world.cached[pool])
    return prefill_share_s(one["per_token_s"], uncached, expected_output(world, step))


def _score(world: World, task: int, step: int) -> bool:
    """Predict the step in each pool, and rank the pools; returns whether any can run it."""
    now_s = world.clock[0]["now_s"]
    after_s, known, deviation_s = remaining_s(world, step)
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
        off_frac = world.pools[pool]["error_frac"]
        world.grace_s[pool] = grace_s(after_s, deviation_s, service_s, off_frac)
        longest_s = left_s - after_s - service_s + world.grace_s[pool]
        world.wait_s[pool] = _wait_s(world, pool, service_s, longest_s)
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
            ranks = keys(policy, _traits(world, pool))
            world.first_key[pool], world.second_key[pool] = ranks
    world.clock[0]["least_s"] = least_alone_s
    longest_s = within_share_s(left_s, after_s, known, least_s)
    asks_to_begin = world.clock[0]["refuses"] != 0 and world.steps[step]["blockers"] == 0
    for pool in range(len(world.pools)):
        finish_s, waits_s = world.finish_s[pool], world.wait_s[pool]
        world.patient[pool] = finish_s <= longest_s
        if asks_to_begin and after_s > 0.0 and policy == 0 and waits_s > 0.0:
            # As `placement.predictions.seen_as_whole`.
            over_s = begun_by_s(longest_s, finish_s - waits_s) - finish_s
            if over_s < 0.0:
                world.slack_s[pool] = min(world.slack_s[pool], over_s)
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
    """Fill in costs in one pool; returns seconds of service."""
    one, what = world.pools[pool], world.steps[step]
    estimate = world.estimates[what["estimate"]]
    book = world.machines[world.replica[pool]]
    if what["kind"] == LLM:
        uncached = max(float(what["prompt"]) - world.cached[pool], 0.0)
        output = expected_output(world, step)
        curve = curve_of(one)
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
    return float(service_s)


def _wait_s(world: World, pool: int, service_s: float, longest_s: float) -> float:
    book = world.machines[world.replica[pool]]
    counts = (float(book["running"]), float(book["waiting"]), float(book["late"]))
    waits_s = wait_s(
        (*counts, book["service_sum_s"]), service_s, world.pools[pool]["cap"], longest_s
    )
    return float(waits_s)


def _traits(world: World, pool: int) -> Traits[float]:
    one = world.pools[pool]
    return Traits(
        one["off_gpu"],
        one["off_cpu"],
        world.first_key[pool],
        float(load_of(world, world.replica[pool])),
        one["cap"],
        world.cached[pool],
        world.cost_usd[pool],
        world.finish_s[pool],
        world.slack_s[pool],
    )


def note_patience(world: World, attempt: int, pool: int) -> None:
    """Until when does an attempt wait in its turn, as in `steelyard.placement.queue`?"""
    clock, one = world.clock[0], world.attempts[attempt]
    one["late"] = 0
    one["late_after_s"] = one["spare_until_s"] = one["whole_s"] = math.inf
    deadline_s = world.tasks[one["task"]]["deadline_s"]
    if deadline_s == math.inf or is_ordered_by_policy(world):
        return
    at_start_s = world.slack_s[pool] + world.wait_s[pool]
    one["late_after_s"] = clock["now_s"] + at_start_s + world.grace_s[pool]
    if world.steps[one["step"]]["blockers"] == 0:
        one["late"] = world.slack_s[pool] + world.grace_s[pool] < 0.0
        one["whole_s"] = deadline_s - clock["now_s"]
        spare_s = kept_slack_s(at_start_s, one["whole_s"] - one["service_s"] - at_start_s)
        one["spare_until_s"] = clock["now_s"] + at_start_s - spare_s


def is_ordered_by_policy(world: World) -> bool:
    """Does the policy order queues by a key of its own?"""
    policy = world.clock[0]["policy"]
    return bool(policy in (PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED))


def queue_key(world: World, task: int, slack_at_start_s: float) -> float:
    """What queues are ordered by: the latest start, or what a policy for whole tasks goes by."""
    clock, slot = world.clock[0], world.tasks[task]
    if clock["policy"] == PROGRAM_FCFS:
        return float(slot["arrival_s"])
    if clock["policy"] == PROGRAM_LEAST_ATTAINED:
        return float(slot["attained_s"])
    if slot["deadline_s"] < math.inf:
        return float(clock["now_s"] + slack_at_start_s)
    return float(clock["now_s"] + PATIENCE_S)
