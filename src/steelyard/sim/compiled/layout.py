"""The world of the compiled path: arrays of records, so that what is used together lies together.

A replica, a step's attempt and an open task fill whole cache lines, mostly two are used; an array
per quantity would cost a cache miss per quantity, which is what limits a simulation of a million
replicas.
"""

from typing import Any, NamedTuple

import numpy as np

# Arrays of records: their fields have names and types below, which type checkers cannot see.
Records = Any
# Arrays of numbers, whose elements are plain numbers in a kernel.
Ints = Any
Floats = Any

NONE = -1
# Kinds of steps.
LLM, TOOL, HUMAN = 0, 1, 2
# Kinds of what is due: a replica's alarm, the end of a gap, an ended attempt, a lost attempt.
ALARM, GAP, ENDED, LOST = 0, 1, 2, 3
# Phases of a tool in the heap of delays.
STARTS, WAITS = 0, 1
# Why a task fails; 0 while it does not.
REFUSED_BUDGET, REFUSED_POOLS, ATTEMPTS_USED_UP = 1, 2, 3
# Entries of the calendar in one piece.
CHUNK = 8
# Powers of two of a step's number that are told apart, and one entry for all.
DEPTHS = 24
ANY_DEPTH = DEPTHS - 1

# Kinds of changes of state that are counted, and of those that a log keeps.
(
    SUBMITTED,
    PLACED,
    REFUSED,
    STARTED,
    PREFILLING,
    FIRST_TOKEN,
    COMPUTING,
    COMPUTED,
    FINISHED,
    FAILED,
    GAP_OVER,
    TASK_SUCCEEDED,
    TASK_FAILED,
    REPLICA_DOWN,
    REPLICA_UP,
) = range(15)
CHANGES = (
    "task_submitted",
    "step_placed",
    "step_refused",
    "attempt_started",
    "prefill_began",
    "first_token",
    "tool_began",
    "tool_computed",
    "attempt_finished",
    "attempt_failed",
    "gap_over",
    "task_succeeded",
    "task_failed",
    "replica_down",
    "replica_up",
)

# Bytes that the processor reads and keeps together.
LINE_BYTES = 64


def in_lines(fields: list[tuple[str, str] | tuple[str, str, int]]) -> np.dtype[np.void]:
    """A record that takes whole cache lines.

    >>> in_lines([("a", "f8"), ("b", "i4")]).itemsize
    64
    """
    spare = -np.dtype(fields).itemsize % LINE_BYTES
    return np.dtype([*fields, ("padding", "u1", spare)] if spare else fields)


CLOCK = np.dtype(
    [
        ("now_s", "f8"),
        ("sequence", "i8"),
        ("width_s", "f8"),
        ("bucket", "i8"),
        ("pending", "i8"),
        ("near_n", "i8"),
        ("far_n", "i8"),
        ("fifo_from", "i8"),
        ("fifo_n", "i8"),
        ("free_chunk", "i8"),
        ("free_chunks", "i8"),
        ("next_arrival", "i8"),
        ("next_outage", "i8"),
        ("free_attempt", "i8"),
        ("free_attempts", "i8"),
        ("free_task", "i8"),
        ("free_tasks", "i8"),
        ("log_n", "i8"),
        ("logs", "i8"),
        ("stride", "i8"),
        ("policy", "i8"),
        ("max_attempts", "i8"),
        ("refuses", "i8"),
        ("window_s", "f8"),
        ("window", "i8"),
        ("least_s", "f8"),
        ("lost_again", "i8"),
        ("looks_ahead", "i8"),
        ("hour", "i8"),
        ("next_hour_s", "f8"),
        ("first_hour", "f8"),
    ]
)
POOL = np.dtype(
    [
        ("first", "i8"),
        ("replicas", "i8"),
        ("model", "i8"),
        ("floor_s", "f8"),
        ("per_token_s", "f8"),
        ("itl_base_s", "f8"),
        ("itl_slope_s", "f8"),
        ("cap", "f8"),
        ("context_tokens", "f8"),
        ("by_token", "i8"),
        ("usd_per_input", "f8"),
        ("usd_per_cached", "f8"),
        ("usd_per_output", "f8"),
        ("rent", "f8"),
        ("bid", "f8"),
        ("speed", "f8"),
        ("cores", "f8"),
        ("memory_bytes", "f8"),
        ("start_s", "f8"),
        ("off_gpu", "f8"),
        ("off_cpu", "f8"),
        ("places_from", "i8"),
        ("correction", "f8"),
        ("log_correction", "f8"),
        ("log_square", "f8"),
        ("corrections", "i8"),
        ("error_frac", "f8"),
        ("failures", "i8"),
        ("failed_s", "f8"),
        ("open_until_s", "f8"),
        ("down", "i8"),
        ("epoch", "i8"),
        ("running", "i8"),
        ("waiting", "i8"),
        ("since_s", "f8"),
        ("idle_from", "i8"),
        ("rents_from", "i8"),
        ("rents", "i8"),
        ("bids_from", "i8"),
        ("bids", "i8"),
    ]
)
# What a decision reads of every candidate lies in the first line, and what only queues need in the
# third, which is not asked for ahead.
MACHINE = in_lines(
    [
        ("running", "i4"),
        ("waiting", "i4"),
        ("service_sum_s", "f8"),
        ("share_sum_s", "f8"),
        ("late", "i4"),
        ("pool", "i4"),
        ("alarm_s", "f8"),
        ("active", "i4"),
        ("places", "i4"),
        # One queue for each class of `steelyard.placement.queue`.
        ("queue_head", "i4", 4),
        ("attained", "f8"),
        ("rate", "f8"),
        ("at_s", "f8"),
        ("prefill_end_s", "f8"),
        ("memory_bytes", "f8"),
        ("prefilling", "i4"),
        ("shared_n", "i4"),
        ("delays_n", "i4"),
        ("prefill_head", "i4"),
        ("prefill_tail", "i4"),
        ("since_late", "i4"),
        ("sequence", "i4"),
        ("queued", "i4"),
        ("queue_tail", "i4", 4),
        ("boundaries", "i4"),
        ("late_since_s", "f8"),
    ]
)
# A stream or tool in a replica's heap: `key` is a time, or work attained at its end.
MEMBER = np.dtype([("key", "f8"), ("sequence", "i4"), ("attempt", "i4")])
ATTEMPT = in_lines(
    [
        ("task", "i4"),
        ("step", "i4"),
        ("replica", "i4"),
        ("next", "i4"),
        ("previous", "i4"),
        ("came", "i4"),
        ("number", "i2"),
        ("phase", "i2"),
        ("concurrency", "i4"),
        ("cached", "i4"),
        ("service_s", "f8"),
        ("share_s", "f8"),
        ("neighbours_share_s", "f8"),
        ("least_s", "f8"),
        ("reserved_usd", "f8"),
        ("placed_s", "f8"),
        ("started_s", "f8"),
        ("first_s", "f8"),
        ("left", "f8"),
        ("slowness", "f8"),
        ("rent", "f8"),
        # While it waits.
        ("key_s", "f8"),
        ("late_after_s", "f8"),
        ("late", "i8"),
        ("spare_until_s", "f8"),
        ("whole_s", "f8"),
    ]
)
TASK = in_lines(
    [
        ("template", "i4"),
        ("number", "i4"),
        ("open", "i4"),
        ("left", "i4"),
        ("error", "i4"),
        ("ended_n", "i4"),
        ("held_n", "i4"),
        ("next", "i4"),
        ("last_replica", "i8"),
        ("last_end_s", "f8"),
        ("attained_s", "f8"),
        ("key", "i8"),
        ("arrival_s", "f8"),
        ("deadline_s", "f8"),
        ("budget_usd", "f8"),
        ("spent_usd", "f8"),
        ("reserved_usd", "f8"),
        ("avoidable_s", "f8"),
        ("slowness", "i8"),
    ]
)
ENDED_STEP = np.dtype([("t_s", "f8"), ("step", "i4")])
HELD = np.dtype([("replica", "i4"), ("step", "i2"), ("epoch", "i2")])
TEMPLATE = np.dtype(
    [
        ("first", "i8"),
        ("steps", "i8"),
        ("agent", "i8"),
        ("merges", "i8"),
        ("deadline_after_s", "f8"),
        ("budget_usd", "f8"),
    ]
)
STEP = np.dtype(
    [
        ("kind", "i4"),
        ("model", "i4"),
        ("step_id", "i4"),
        ("estimate", "i4"),
        ("depth", "i4"),
        ("blockers", "i4"),
        ("children", "i4"),
        ("children_end", "i4"),
        ("boundaries", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("max_output", "i4"),
        ("sources", "i8"),
        ("cpu_s", "f8"),
        ("wait_s", "f8"),
        ("memory_bytes", "f8"),
    ]
)
ARRIVAL = np.dtype(
    [("t_s", "f8"), ("template", "i4"), ("key", "i4"), ("slowness", "i8"), ("success_s", "f8")]
)
ESTIMATE = np.dtype(
    [
        ("output", "f8"),
        ("outputs", "i8"),
        ("cpu_s", "f8"),
        ("other_s", "f8"),
        ("memory_bytes", "f8"),
        ("tools", "i8"),
    ]
)
REMAINING = np.dtype([("mean", "f8"), ("square", "f8"), ("count", "i8")])
OUTAGE = np.dtype([("t_s", "f8"), ("begins", "i8"), ("outage", "i8")])
DUE = np.dtype([("t_s", "f8"), ("sequence", "i8"), ("code", "i8")])
LOGGED = np.dtype(
    [
        ("t_s", "f8"),
        ("kind", "i4"),
        ("task", "i4"),
        ("step_id", "i4"),
        ("attempt", "i4"),
        ("pool", "i4"),
        ("replica", "i4"),
        ("amount", "f8"),
    ]
)
# What a pool did in a window of time.
FLOW = np.dtype(
    [
        ("placed", "i8"),
        ("finished", "i8"),
        ("failed", "i8"),
        ("cost_usd", "f8"),
        ("running_s", "f8"),
        ("waiting_s", "f8"),
        ("input_tokens", "f8"),
        ("cached_tokens", "f8"),
        ("output_tokens", "f8"),
    ]
)
# What happened to tasks and steps in a window of time.
WINDOW = np.dtype(
    [
        ("submitted", "i8"),
        ("succeeded", "i8"),
        ("in_time", "i8"),
        ("failed", "i8"),
        ("refused", "i8"),
        ("placed", "i8"),
        ("placed_in_time", "i8"),
        ("cost_usd", "f8"),
    ]
)
# Latencies are counted in bins that are 9 % wide, from 0.1 ms on.
BINS = 256
BINS_PER_E = 12.0
SHORTEST_BIN_S = 1e-4
LATENCIES = ("llm_ttft_s", "llm_step_s", "tool_step_s", "task_s")
TTFT, LLM_STEP, TOOL_STEP, WHOLE_TASK = 0, 1, 2, 3


class World(NamedTuple):
    """Everything that a simulation is, as arrays. Indices of records stand in for references."""

    clock: Records
    pools: Records
    machines: Records
    shared: Records
    delays: Records
    attempts: Records
    tasks: Records
    ended: Records
    blockers: Ints
    held: Records
    templates: Records
    steps: Records
    children: Ints
    sources: Ints
    arrivals: Records
    slowness: Floats
    estimates: Records
    remaining: Records
    outages: Records
    hits: Ints
    hourly_usd: Floats
    # The calendar.
    entries: Records
    chunk_next: Ints
    bucket_head: Ints
    bucket_n: Ints
    near: Records
    far: Records
    fifo: Records
    # Room to work in.
    batch: Ints
    ready: Ints
    replica: Ints
    cached: Floats
    warm: Ints
    warm_tokens: Floats
    allowed: Ints
    patient: Ints
    slack_s: Floats
    wait_s: Floats
    grace_s: Floats
    finish_s: Floats
    cost_usd: Floats
    bid_usd: Floats
    first_key: Floats
    second_key: Floats
    names: Ints
    # What is told.
    log: Records
    counts: Ints
    flow: Records
    windows: Records
    latencies: Ints
