"""What happens, in which order: the counterpart of `steelyard.sim.simulate`, action by action."""

import math

import numpy as np

from steelyard.sim.compiled.ahead import ARRIVALS_AHEAD, ask_for_arrival
from steelyard.sim.compiled.books import (
    count_latency,
    held_tokens,
    learn_remaining,
    note_finished,
    note_placed,
    note_started,
)
from steelyard.sim.compiled.calendar import enter, enter_now, fits, look_ahead, pop_near, take_now
from steelyard.sim.compiled.hours import begin_hour, next_hour_s
from steelyard.sim.compiled.layout import (
    ALARM,
    ATTEMPTS_USED_UP,
    ENDED,
    FAILED,
    FINISHED,
    GAP,
    GAP_OVER,
    HUMAN,
    LLM,
    LOST,
    NONE,
    PLACED,
    REFUSED,
    REFUSED_BUDGET,
    REFUSED_POOLS,
    REPLICA_DOWN,
    REPLICA_UP,
    STARTED,
    SUBMITTED,
    TASK_FAILED,
    TASK_SUCCEEDED,
    WHOLE_TASK,
    World,
)
from steelyard.sim.compiled.machines import advance, begin, drain, next_s, queue, take_ready
from steelyard.sim.compiled.placing import choose, note_patience, queue_key, share_s

# Why `run` returns.
DONE, PAUSED, FULL = 0, 1, 2


def run(world: World, until_s: float, actions: int) -> int:
    """Let the clock run.

    Args:
        world: The world, which is changed.
        until_s: Nothing later happens.
        actions: After so many the caller wants to hear of it.

    Returns:
        `DONE` when nothing is due by `until_s`, `PAUSED` after `actions`, `FULL` when arrays must
        grow first.
    """
    clock = world.clock[0]
    done = 0
    while done < actions:
        if _is_full(world):
            return FULL
        given_s = min(_next_outage_s(world), next_hour_s(world), _next_arrival_s(world))
        look_ahead(world, min(given_s, until_s))
        near_s = world.near[0]["t_s"] if clock["near_n"] > 0 else math.inf
        if clock["near_n"] == 0 and clock["pending"] + clock["far_n"] > 0 and not fits(world):
            return FULL
        soonest_s = min(given_s, near_s)
        if clock["fifo_n"] > 0 and soonest_s > clock["now_s"]:
            entry = world.fifo[take_now(world)]
            _act(world, entry["code"], entry["t_s"])
        elif soonest_s > until_s or soonest_s == math.inf:
            return DONE
        elif given_s <= near_s:
            _set_time(world, given_s)
            if _next_outage_s(world) <= given_s:
                _change_outage(world)
            elif clock["next_hour_s"] <= given_s:
                begin_hour(world)
            else:
                _submit(world)
        else:
            _set_time(world, near_s)
            _act(world, pop_near(world), near_s)
        done += 1
    return PAUSED


def _is_full(world: World) -> bool:
    """Might the next action need more room than there is?"""
    clock = world.clock[0]
    stride = clock["stride"]
    return bool(
        clock["free_tasks"] < 1
        or clock["free_attempts"] < stride
        or clock["free_chunks"] < 2 * stride + 2
        or clock["far_n"] + 2 * stride + 2 > len(world.far)
        or clock["near_n"] + 2 * stride + 2 > len(world.near)
        or clock["fifo_n"] + 2 * stride + len(world.batch) + 2 > len(world.fifo)
        or (clock["logs"] and clock["log_n"] + clock["logs"] > len(world.log))
    )


def _set_time(world: World, now_s: float) -> None:
    clock = world.clock[0]
    clock["now_s"] = max(clock["now_s"], now_s)
    last = len(world.windows) - 1
    clock["window"] = min(last, int(clock["now_s"] / clock["window_s"]))


def _next_outage_s(world: World) -> float:
    at = world.clock[0]["next_outage"]
    return float(world.outages[at]["t_s"]) if at < len(world.outages) else math.inf


def _next_arrival_s(world: World) -> float:
    at = world.clock[0]["next_arrival"]
    return float(world.arrivals[at]["t_s"]) if at < len(world.arrivals) else math.inf


def _act(world: World, code: int, t_s: float) -> None:
    kind, what = code & 3, code >> 2
    if kind == ALARM:
        # Alarms are not taken out when plans change; the replica knows the valid one.
        if world.machines[what]["alarm_s"] == t_s:
            world.machines[what]["alarm_s"] = math.inf
            _settle(world, what)
        return
    if kind == GAP:
        world.counts[GAP_OVER] += 1
        _go_on(world, what // world.clock[0]["stride"], what % world.clock[0]["stride"])
        return
    task, step, number = _release(world, what)
    if kind == ENDED:
        _go_on(world, task, step - world.templates[world.tasks[task]["template"]]["first"])
    else:
        _retry(world, task, step, number + 1)


def _release(world: World, attempt: int) -> tuple[int, int, int]:
    """Give the record of an ended attempt back; returns its task, step and number."""
    one, clock = world.attempts[attempt], world.clock[0]
    one["next"] = clock["free_attempt"]
    clock["free_attempt"] = attempt
    clock["free_attempts"] += 1
    # One kind of number for all, or Numba would compile what follows once for each.
    return np.int64(one["task"]), np.int64(one["step"]), np.int64(one["number"])  # type: ignore[return-value]


def _submit(world: World) -> None:
    clock = world.clock[0]
    number = clock["next_arrival"]
    clock["next_arrival"] += 1
    ask_for_arrival(world, number + ARRIVALS_AHEAD)
    arrival = world.arrivals[number]
    slot = clock["free_task"]
    task = world.tasks[slot]
    clock["free_task"] = task["next"]
    clock["free_tasks"] -= 1
    template = world.templates[arrival["template"]]
    task["template"] = arrival["template"]
    task["number"] = number
    task["key"] = arrival["key"]
    task["slowness"] = arrival["slowness"]
    task["arrival_s"] = clock["now_s"]
    task["deadline_s"] = arrival["t_s"] + template["deadline_after_s"]
    task["budget_usd"] = template["budget_usd"]
    task["left"] = template["steps"]
    task["open"] = task["error"] = task["ended_n"] = task["held_n"] = 0
    task["spent_usd"] = task["reserved_usd"] = task["avoidable_s"] = 0.0
    task["attained_s"] = task["last_end_s"] = 0.0
    task["last_replica"] = NONE
    world.windows[clock["window"]]["submitted"] += 1
    _tell(world, SUBMITTED, (number, NONE, 0), (NONE, NONE), 0.0)
    base = slot * clock["stride"]
    found = 0
    for step in range(template["steps"]):
        blockers = world.steps[template["first"] + step]["blockers"]
        world.blockers[base + step] = blockers
        if blockers == 0:
            world.ready[found] = step
            found += 1
    task["open"] = found
    for at in range(found):
        _begin_step(world, slot, world.ready[at])
    _close_if_finished(world, slot)


def _begin_step(world: World, task: int, local: int) -> None:
    step = world.templates[world.tasks[task]["template"]]["first"] + local
    if world.steps[step]["kind"] == HUMAN:
        clock = world.clock[0]
        code = ((task * clock["stride"] + local) << 2) | GAP
        enter(world, clock["now_s"] + world.steps[step]["wait_s"], code)
    else:
        _place(world, task, step, 0)


def _place(world: World, task: int, step: int, number: int) -> None:
    clock, slot = world.clock[0], world.tasks[task]
    window = world.windows[clock["window"]]
    pool = choose(world, task, step, number)
    if pool < 0:
        window["refused"] += 1
        _tell(world, REFUSED, (slot["number"], step, number), (NONE, NONE), 0.0)
        _fail_step(world, task, REFUSED_BUDGET if pool < NONE else REFUSED_POOLS)
        return
    attempt = clock["free_attempt"]
    one = world.attempts[attempt]
    clock["free_attempt"] = one["next"]
    clock["free_attempts"] -= 1
    replica = world.replica[pool]
    slack_s, waits_s = world.slack_s[pool], world.wait_s[pool]
    one["task"], one["step"], one["replica"], one["number"] = task, step, replica, number
    one["key_s"] = queue_key(world, task, slack_s + waits_s)
    one["service_s"] = world.finish_s[pool] - waits_s
    note_patience(world, attempt, pool)
    one["share_s"] = share_s(world, pool, step)
    one["least_s"] = clock["least_s"]
    one["rent"] = world.pools[pool]["rent"]
    one["reserved_usd"] = world.cost_usd[pool]
    one["placed_s"] = clock["now_s"]
    one["started_s"] = one["first_s"] = math.nan
    one["left"] = 0.0
    one["cached"] = 0
    local = step - world.templates[slot["template"]]["first"]
    one["slowness"] = world.slowness[slot["slowness"] + local]
    window["placed"] += 1
    window["placed_in_time"] += slack_s >= 0.0
    world.flow[clock["window"] * len(world.pools) + pool]["placed"] += 1
    _tell(world, PLACED, (slot["number"], step, number), (pool, replica), world.finish_s[pool])
    note_placed(world, attempt)
    queue(world, replica, attempt)
    _settle(world, replica)


def _settle(world: World, replica: int) -> None:
    """Let everything happen on a replica that happens by now, and set its alarm."""
    busy = True
    while busy:
        ended = advance(world, replica)
        for at in range(ended):
            _end_attempt(world, world.batch[at], ok=True)
        busy = ended > 0
        attempt = take_ready(world, replica)
        while attempt != NONE:
            _start(world, replica, attempt)
            busy = True
            attempt = take_ready(world, replica)
    alarm_s = next_s(world, replica)
    if alarm_s != world.machines[replica]["alarm_s"]:
        world.machines[replica]["alarm_s"] = alarm_s
        if alarm_s < math.inf:
            enter(world, alarm_s, (replica << 2) | ALARM)


def _start(world: World, replica: int, attempt: int) -> None:
    one = world.attempts[attempt]
    if world.steps[one["step"]]["kind"] == LLM:
        one["cached"] = held_tokens(world, attempt)
    _tell_attempt(world, STARTED, attempt, 0.0)
    note_started(world, attempt)
    begin(world, replica, attempt)


def _end_attempt(world: World, attempt: int, ok: bool) -> None:
    cost_usd = note_finished(world, attempt, ok)
    clock = world.clock[0]
    pool = world.machines[world.attempts[attempt]["replica"]]["pool"]
    flow = world.flow[clock["window"] * len(world.pools) + pool]
    flow["cost_usd"] += cost_usd
    world.windows[clock["window"]]["cost_usd"] += cost_usd
    if ok:
        flow["finished"] += 1
        _tell_attempt(world, FINISHED, attempt, cost_usd)
        enter_now(world, clock["now_s"], (attempt << 2) | ENDED)
    else:
        flow["failed"] += 1
        _tell_attempt(world, FAILED, attempt, cost_usd)
        enter_now(world, clock["now_s"], (attempt << 2) | LOST)


def _go_on(world: World, task: int, local: int) -> None:
    """A step has ended well: begin those that waited for it."""
    slot, base = world.tasks[task], task * world.clock[0]["stride"]
    step = world.steps[world.templates[slot["template"]]["first"] + local]
    slot["open"] -= 1
    slot["left"] -= 1
    found = 0
    for at in range(step["children"], step["children_end"]):
        child = world.children[at]
        world.blockers[base + child] -= 1
        if world.blockers[base + child] == 0 and slot["error"] == 0:
            world.ready[found] = child
            found += 1
    slot["open"] += found
    for at in range(found):
        _begin_step(world, task, world.ready[at])
    _close_if_finished(world, task)


def _retry(world: World, task: int, step: int, number: int) -> None:
    if number < world.clock[0]["max_attempts"]:
        # `placement.elsewhere` would keep it off every place where it was lost. After one loss all
        # of the pool is down anyway; after two, the first may be back.
        if number > 1:
            world.clock[0]["lost_again"] += 1
        _place(world, task, step, number)
    else:
        _fail_step(world, task, ATTEMPTS_USED_UP)
    _close_if_finished(world, task)


def _fail_step(world: World, task: int, error: int) -> None:
    slot = world.tasks[task]
    slot["open"] -= 1
    if slot["error"] == 0:
        slot["error"] = error


def _close_if_finished(world: World, task: int) -> None:
    slot, clock = world.tasks[task], world.clock[0]
    if slot["open"] > 0 or (slot["left"] > 0 and slot["error"] == 0):
        return
    window = world.windows[clock["window"]]
    if slot["error"] == 0:
        learn_remaining(world, task)
        count_latency(world, WHOLE_TASK, clock["now_s"] - slot["arrival_s"])
        window["succeeded"] += 1
        world.arrivals[slot["number"]]["success_s"] = clock["now_s"]
        window["in_time"] += clock["now_s"] <= slot["deadline_s"]
        _tell(world, TASK_SUCCEEDED, (slot["number"], NONE, 0), (NONE, NONE), 0.0)
    else:
        window["failed"] += 1
        _tell(world, TASK_FAILED, (slot["number"], NONE, 0), (NONE, NONE), float(slot["error"]))
    slot["next"] = clock["free_task"]
    clock["free_task"] = task
    clock["free_tasks"] += 1


def _change_outage(world: World) -> None:
    clock = world.clock[0]
    change = world.outages[clock["next_outage"]]
    clock["next_outage"] += 1
    lost = 0
    for at in range(len(world.pools)):
        if not world.hits[change["outage"], at]:
            continue
        pool = world.pools[at]
        pool["down"] += 1 if change["begins"] else -1
        if change["begins"] and pool["down"] == 1:
            pool["epoch"] += 1
            for replica in range(pool["first"], pool["first"] + pool["replicas"]):
                lost = drain(world, replica, lost)
                _tell(world, REPLICA_DOWN, (NONE, NONE, 0), (at, replica), 0.0)
        elif not change["begins"] and pool["down"] == 0 and pool["replicas"] > 0:
            pool["failures"] = 0
            pool["open_until_s"] = -math.inf
            for replica in range(pool["first"], pool["first"] + pool["replicas"]):
                _tell(world, REPLICA_UP, (NONE, NONE, 0), (at, replica), 0.0)
    for at in range(lost):
        _end_attempt(world, world.batch[at], ok=False)


def _tell_attempt(world: World, kind: int, attempt: int, amount: float) -> None:
    one = world.attempts[attempt]
    replica = one["replica"]
    who = (world.tasks[one["task"]]["number"], one["step"], one["number"])
    _tell(world, kind, who, (world.machines[replica]["pool"], replica), amount)


def _tell(
    world: World,
    kind: int,
    who: tuple[int, int, int],
    where: tuple[int, int],
    amount: float,
) -> None:
    """Count a change of state, and keep it where a log is wanted."""
    world.counts[kind] += 1
    clock = world.clock[0]
    if not clock["logs"]:
        return
    entry = world.log[clock["log_n"]]
    clock["log_n"] += 1
    entry["t_s"] = clock["now_s"]
    entry["kind"] = kind
    entry["task"] = who[0]
    entry["step_id"] = who[1] if who[1] == NONE else world.steps[who[1]]["step_id"]
    entry["attempt"] = who[2]
    entry["pool"] = where[0]
    entry["replica"] = where[1] if where[1] == NONE else where[1] - world.pools[where[0]]["first"]
    entry["amount"] = amount
