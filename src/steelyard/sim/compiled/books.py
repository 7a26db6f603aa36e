"""The bookkeeping of the fleet and of tasks: the counterpart of `steelyard.fleet.state`.

Prefixes are kept per task: on which replicas it has run, and which of its steps last. Beyond the
reference: no task's account is dropped when many are open, and no prefix is forgotten while its
task is open and its replica is up.
"""

import math

from steelyard.domain.units import rental_usd
from steelyard.fleet.lessons import LEAST_ERROR_FRAC, MOST_ERROR_FRAC
from steelyard.perf.cost import llm_used_s, priced_tokens_usd, tool_used_s
from steelyard.perf.predict import prefill_s, shared_itl_s
from steelyard.sim.compiled.layout import (
    ANY_DEPTH,
    BINS,
    BINS_PER_E,
    DEPTHS,
    LLM_STEP,
    SHORTEST_BIN_S,
    TOOL_STEP,
    TTFT,
    World,
)

# The same figures as in steelyard.fleet.state and .estimates; a test compares the paths.
_PLAIN_SAMPLES = 20
_BREAKER_FAILURES = 3
_BREAKER_OPEN_S = 5.0
_BREAKER_MAX_OPEN_S = 60.0
_MAX_LOG_CORRECTION = math.log(20.0)


def held_tokens(world: World, attempt: int) -> int:
    """How many tokens of its prompt does an attempt find on its replica?"""
    one = world.attempts[attempt]
    task, step = one["task"], world.steps[one["step"]]
    epoch = world.pools[world.machines[one["replica"]]["pool"]]["epoch"]
    base = task * world.clock[0]["stride"]
    most = 0
    for at in range(base, base + world.tasks[task]["held_n"]):
        held = world.held[at]
        if held["replica"] == one["replica"] and held["epoch"] == epoch:
            most = max(most, world.sources[step["sources"] + held["step"]])
    return int(min(most, step["prompt"]))


def hold(world: World, attempt: int) -> None:
    """Note that the prompt of an attempt is in the cache of its replica now."""
    one = world.attempts[attempt]
    task = world.tasks[one["task"]]
    template = world.templates[task["template"]]
    base = one["task"] * world.clock[0]["stride"]
    at = base
    end = base + task["held_n"]
    if template["merges"]:
        while at < end and world.held[at]["replica"] != one["replica"]:
            at += 1
    else:
        at = end
    held = world.held[at]
    held["replica"] = one["replica"]
    held["step"] = one["step"] - template["first"]
    machine = world.machines[one["replica"]]
    held["epoch"] = world.pools[machine["pool"]]["epoch"]
    machine["boundaries"] += world.steps[one["step"]]["boundaries"]
    if at == end:
        task["held_n"] += 1


def note_placed(world: World, attempt: int) -> None:
    """An attempt waits at its replica from now on."""
    one = world.attempts[attempt]
    book = world.machines[one["replica"]]
    book["waiting"] += 1
    book["late"] += one["late"]
    book["service_sum_s"] += one["service_s"]
    book["share_sum_s"] += one["share_s"]
    world.tasks[one["task"]]["reserved_usd"] += one["reserved_usd"]
    _count_load(world, one["replica"], 0, 1)


def note_started(world: World, attempt: int) -> None:
    """An attempt waits no longer."""
    one = world.attempts[attempt]
    book = world.machines[one["replica"]]
    book["waiting"] -= 1
    book["late"] -= one["late"]
    book["running"] += 1
    one["concurrency"] = book["running"]
    others = float(book["running"] + book["waiting"]) - 1.0
    one["neighbours_share_s"] = 0.0
    if others > 0.0:
        one["neighbours_share_s"] = (book["share_sum_s"] - one["share_s"]) / max(others, 1.0)
    _count_load(world, one["replica"], 1, -1)


def note_finished(world: World, attempt: int, ok: bool) -> float:
    """An attempt has ended; returns what it cost, in USD."""
    one = world.attempts[attempt]
    book = world.machines[one["replica"]]
    if math.isnan(one["started_s"]):
        book["waiting"] -= 1
        book["late"] -= one["late"]
        _count_load(world, one["replica"], 0, -1)
    else:
        book["running"] -= 1
        _count_load(world, one["replica"], -1, 0)
    pool = world.pools[book["pool"]]
    if book["waiting"] + book["running"] == 0:
        pool["idle_from"] = min(pool["idle_from"], one["replica"])
        book["service_sum_s"] = 0.0
        book["share_sum_s"] = 0.0
    else:
        book["service_sum_s"] -= one["service_s"]
        book["share_sum_s"] -= one["share_s"]
    is_tool = pool["model"] < 0
    cost_usd = _tool_usd(world, attempt) if is_tool else _llm_usd(world, attempt)
    task = world.tasks[one["task"]]
    task["spent_usd"] += cost_usd
    task["reserved_usd"] -= one["reserved_usd"]
    if not ok:
        _count_failure(world, attempt)
        return cost_usd
    pool["failures"] = 0
    pool["open_until_s"] = -math.inf
    if is_tool:
        _learn_tool(world, attempt)
    else:
        _learn_llm(world, attempt)
    _note_ended_step(world, attempt, is_tool)
    return cost_usd


def _note_ended_step(world: World, attempt: int, is_tool: bool) -> None:
    """A step has ended well: note it in the account of its task."""
    one = world.attempts[attempt]
    task = world.tasks[one["task"]]
    ended = world.ended[one["task"] * world.clock[0]["stride"] + task["ended_n"]]
    task["attained_s"] += world.clock[0]["now_s"] - one["started_s"]
    if not is_tool:
        task["last_replica"] = one["replica"]
        task["last_end_s"] = world.clock[0]["now_s"]
    # Waits and slow machines are avoidable; the rest of the task is learned without them.
    took_s = world.clock[0]["now_s"] - one["placed_s"]
    task["avoidable_s"] += max(0.0, took_s - one["least_s"])
    ended["t_s"] = world.clock[0]["now_s"] - task["avoidable_s"]
    ended["step"] = one["step"]
    task["ended_n"] += 1


def learn_remaining(world: World, task: int) -> None:
    """A task has ended well: how long before did each of its steps end?"""
    base = task * world.clock[0]["stride"]
    end_s = world.clock[0]["now_s"] - world.tasks[task]["avoidable_s"]
    for at in range(base, base + world.tasks[task]["ended_n"]):
        ended = world.ended[at]
        step = world.steps[ended["step"]]
        row = step["estimate"] * DEPTHS
        left_s = max(0.0, end_s - ended["t_s"])
        _add_remaining(world, row + step["depth"], left_s)
        _add_remaining(world, row + ANY_DEPTH, left_s)


def remaining_s(world: World, step: int) -> tuple[float, bool, float]:
    """How long does a task usually go on after this step, is that known, and how far is it off?"""
    one = world.steps[step]
    row = world.remaining[one["estimate"] * DEPTHS + one["depth"]]
    if row["count"] == 0:
        row = world.remaining[one["estimate"] * DEPTHS + ANY_DEPTH]
    variance = row["square"] - row["mean"] * row["mean"]
    deviation_s = math.sqrt(max(0.0, variance))
    return row["mean"] + deviation_s, row["count"] > 0, deviation_s


def count_latency(world: World, what: int, seconds: float) -> None:
    """Count a latency in the window of the moment."""
    place = 0
    if seconds > SHORTEST_BIN_S:
        place = min(BINS - 1, 1 + int(BINS_PER_E * math.log(seconds / SHORTEST_BIN_S)))
    window = world.clock[0]["window"]
    world.latencies[(window * 4 + what) * BINS + place] += 1


def integrate_load(world: World, at: int) -> None:
    """Add what ran and waited in a pool since its last change to the windows in which it did."""
    pool, clock = world.pools[at], world.clock[0]
    window = min(len(world.windows) - 1, int(pool["since_s"] / clock["window_s"]))
    while window <= clock["window"]:
        end_s = clock["now_s"]
        if window < clock["window"]:
            end_s = (window + 1) * clock["window_s"]
        flow = world.flow[window * len(world.pools) + at]
        flow["running_s"] += pool["running"] * (end_s - pool["since_s"])
        flow["waiting_s"] += pool["waiting"] * (end_s - pool["since_s"])
        pool["since_s"] = end_s
        window += 1


def _add_remaining(world: World, row: int, sample_s: float) -> None:
    spread = world.remaining[row]
    spread["count"] += 1
    weight = min(spread["count"], _PLAIN_SAMPLES)
    spread["mean"] += (sample_s - spread["mean"]) / weight
    spread["square"] += (sample_s * sample_s - spread["square"]) / weight


def _count_load(world: World, replica: int, started: int, queued: int) -> None:
    """Integrate what runs and waits in the replica's pool over time, then change it."""
    at = world.machines[replica]["pool"]
    integrate_load(world, at)
    pool = world.pools[at]
    pool["running"] += started
    pool["waiting"] += queued


def _llm_usd(world: World, attempt: int) -> float:
    """Cost of what an attempt has used of a model: nothing is counted of half a prompt."""
    one = world.attempts[attempt]
    at = world.machines[one["replica"]]["pool"]
    pool, step = world.pools[at], world.steps[one["step"]]
    prompt, cached, output = 0.0, 0.0, 0.0
    if not math.isnan(one["first_s"]):
        prompt = float(step["prompt"])
        cached = float(one["cached"])
        output = float(int(step["output"] - one["left"] / one["slowness"]))
        flow = world.flow[world.clock[0]["window"] * len(world.pools) + at]
        flow["input_tokens"] += prompt
        flow["cached_tokens"] += cached
        flow["output_tokens"] += output
    if pool["by_token"]:
        prices = (pool["usd_per_input"], pool["usd_per_cached"], pool["usd_per_output"])
        return float(priced_tokens_usd(prices, prompt - cached, cached, output))
    curve = (
        pool["floor_s"],
        pool["per_token_s"],
        pool["itl_base_s"],
        pool["itl_slope_s"],
        pool["cap"],
    )
    return rental_usd(one["rent"], llm_used_s(curve, prompt - cached, output))


def _tool_usd(world: World, attempt: int) -> float:
    one = world.attempts[attempt]
    pool = world.pools[world.machines[one["replica"]]["pool"]]
    room = (pool["speed"], pool["cores"], pool["memory_bytes"])
    if math.isnan(one["started_s"]):
        return rental_usd(one["rent"], float(tool_used_s(room, 0.0, 0.0, 0.0)))
    memory_bytes = world.steps[one["step"]]["memory_bytes"]
    wall_s = world.clock[0]["now_s"] - one["started_s"]
    cpu_s = _used_cpu_s(world, attempt) * pool["speed"]
    return rental_usd(one["rent"], float(tool_used_s(room, cpu_s, wall_s, memory_bytes)))


def _used_cpu_s(world: World, attempt: int) -> float:
    one = world.attempts[attempt]
    pool = world.pools[world.machines[one["replica"]]["pool"]]
    done = world.steps[one["step"]]["cpu_s"] * one["slowness"] - one["left"]
    return float(done / pool["speed"])


def _count_failure(world: World, attempt: int) -> None:
    """Count towards the breaker; whatever ran when a fault showed fails by the same fault.

    Attempts fail only as their whole pool goes down here, and its return closes the breaker: none
    waits for a probe, as one of the reference may (ADR 36).
    """
    one = world.attempts[attempt]
    pool = world.pools[world.machines[one["replica"]]["pool"]]
    now_s = world.clock[0]["now_s"]
    started_s = now_s if math.isnan(one["started_s"]) else one["started_s"]
    if started_s <= pool["failed_s"]:
        return
    pool["failed_s"] = now_s
    pool["failures"] += 1
    over = pool["failures"] - _BREAKER_FAILURES
    if over >= 0:
        open_s = _BREAKER_OPEN_S * 2.0 ** min(over, 16)
        pool["open_until_s"] = now_s + min(_BREAKER_MAX_OPEN_S, open_s)


def _learn_llm(world: World, attempt: int) -> None:
    one = world.attempts[attempt]
    now_s = world.clock[0]["now_s"]
    pool, step = world.pools[world.machines[one["replica"]]["pool"]], world.steps[one["step"]]
    estimate = world.estimates[step["estimate"]]
    estimate["outputs"] += 1
    weight = min(estimate["outputs"], _PLAIN_SAMPLES)
    estimate["output"] += (step["output"] - estimate["output"]) / weight
    hold(world, attempt)
    uncached = float(step["prompt"] - one["cached"])
    predicted_s = prefill_s(pool["floor_s"], pool["per_token_s"], uncached)
    streams = float(one["concurrency"])
    predicted_s += step["output"] * shared_itl_s(
        pool["itl_base_s"], pool["itl_slope_s"], streams, one["neighbours_share_s"]
    )
    wall_s = now_s - one["started_s"]
    if predicted_s > 0.0 and wall_s > 0.0:
        ratio = math.log(wall_s / predicted_s)
        ratio = max(-_MAX_LOG_CORRECTION, min(_MAX_LOG_CORRECTION, ratio))
        pool["corrections"] += 1
        weight = min(pool["corrections"], _PLAIN_SAMPLES)
        pool["log_correction"] += (ratio - pool["log_correction"]) / weight
        pool["correction"] = math.exp(pool["log_correction"])
        pool["log_square"] += (ratio * ratio - pool["log_square"]) / weight
        variance = pool["log_square"] - pool["log_correction"] * pool["log_correction"]
        off = max(LEAST_ERROR_FRAC, 2.0 * math.sqrt(max(0.0, variance)))
        pool["error_frac"] = min(MOST_ERROR_FRAC, off)
    count_latency(world, TTFT, one["first_s"] - one["placed_s"])
    count_latency(world, LLM_STEP, now_s - one["placed_s"])


def _learn_tool(world: World, attempt: int) -> None:
    one = world.attempts[attempt]
    now_s = world.clock[0]["now_s"]
    pool, step = world.pools[world.machines[one["replica"]]["pool"]], world.steps[one["step"]]
    cpu_s = _used_cpu_s(world, attempt)
    wall_s = now_s - one["started_s"]
    estimate = world.estimates[step["estimate"]]
    estimate["tools"] += 1
    weight = min(estimate["tools"], _PLAIN_SAMPLES)
    estimate["cpu_s"] += (cpu_s * pool["speed"] - estimate["cpu_s"]) / weight
    other_s = max(0.0, wall_s - cpu_s - pool["start_s"])
    estimate["other_s"] += (other_s - estimate["other_s"]) / weight
    estimate["memory_bytes"] += (step["memory_bytes"] - estimate["memory_bytes"]) / weight
    count_latency(world, TOOL_STEP, now_s - one["placed_s"])
