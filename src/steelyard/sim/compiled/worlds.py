"""Making a world, and making more room in it."""

import math

import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import PoolSpec
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.calendar import chunks_to_bring
from steelyard.sim.compiled.hours import lay_out_prices, start_clock
from steelyard.sim.compiled.layout import CHUNK, World
from steelyard.sim.compiled.rankings import POLICIES
from steelyard.sim.compiled.tables import (
    Sample,
    arrival_table,
    names_ranked,
    outage_tables,
    pool_table,
    task_tables,
)
from steelyard.sim.conditions import Conditions

_FIRST_TASKS = 1024
# Entries per bucket for which buckets are sized: the heap of the moment stays in the first cache.
_PER_BUCKET = 16
_BUCKETS = 16384
# Fewer fit into the caches with all that runs on them.
_MANY_MACHINES = 5000


def make_world(
    sample: Sample,
    pools: tuple[PoolSpec, ...],
    conditions: Conditions,
    policy: str,
    seed: int,
    told: tuple[float, int, bool],
) -> World:
    """Lay everything out at time 0.

    Args:
        sample: The workload.
        pools: The fleet.
        conditions: The world beside it.
        policy: Name of the policy.
        seed: Of the noise.
        told: Seconds of a window, number of windows, and whether a log is kept.

    Returns:
        The world.
    """
    tables = task_tables(sample, conditions) if sample.tables is None else sample.tables
    table = pool_table(pools, tables.models)
    hourly_usd = lay_out_prices(table, pools, conditions)
    arrivals, slowness = arrival_table(sample, seed, conditions)
    outages, hits = outage_tables(pools, conditions)
    window_s, windows, logs = told
    machines = _machines(table)
    places = int(np.sum(table["replicas"] * table["cap"].astype(np.int64)))
    clock = np.zeros(1, layout.CLOCK)
    clock["policy"] = POLICIES.index(policy)
    clock["stride"], clock["window_s"] = tables.stride, window_s
    clock["max_attempts"] = conditions.max_attempts
    clock["refuses"] = conditions.on_miss == "refuse"
    start_clock(clock[0], conditions)
    clock["looks_ahead"] = len(machines) >= _MANY_MACHINES
    clock["width_s"] = _width_s(sample, tables.templates)
    clock["free_chunk"] = clock["free_attempt"] = clock["free_task"] = layout.NONE
    count = len(pools)
    empty = World(
        clock=clock,
        pools=table,
        machines=machines,
        shared=_zeros(max(1, places), layout.MEMBER),
        delays=_zeros(max(1, places), layout.MEMBER),
        attempts=np.zeros(0, layout.ATTEMPT),
        tasks=np.zeros(0, layout.TASK),
        ended=np.zeros(0, layout.ENDED_STEP),
        blockers=np.zeros(0, np.int16),
        held=np.zeros(0, layout.HELD),
        templates=tables.templates,
        steps=tables.steps,
        children=tables.children,
        sources=tables.sources,
        arrivals=arrivals,
        slowness=slowness,
        estimates=np.zeros(max(1, tables.estimates), layout.ESTIMATE),
        remaining=np.zeros(max(1, tables.estimates) * layout.DEPTHS, layout.REMAINING),
        outages=outages,
        hits=hits,
        hourly_usd=hourly_usd,
        entries=np.zeros(0, layout.DUE),
        chunk_next=np.zeros(0, np.int32),
        bucket_head=np.full(_BUCKETS, layout.NONE, np.int32),
        bucket_n=np.zeros(_BUCKETS, np.int32),
        near=np.zeros(_FIRST_TASKS, layout.DUE),
        far=np.zeros(_FIRST_TASKS, layout.DUE),
        fifo=np.zeros(0, layout.DUE),
        batch=np.zeros(0, np.int64),
        ready=np.zeros(tables.stride, np.int64),
        replica=np.zeros(count, np.int64),
        cached=np.zeros(count),
        warm=np.zeros(count, np.int64),
        warm_tokens=np.zeros(count),
        allowed=np.zeros(count, np.bool_),
        patient=np.zeros(count, np.bool_),
        slack_s=np.zeros(count),
        wait_s=np.zeros(count),
        grace_s=np.zeros(count),
        finish_s=np.zeros(count),
        cost_usd=np.zeros(count),
        bid_usd=np.zeros(count),
        first_key=np.zeros(count),
        second_key=np.zeros(count),
        names=names_ranked(pools),
        log=np.zeros(0, layout.LOGGED),
        counts=np.zeros(len(layout.CHANGES), np.int64),
        flow=np.zeros(windows * count, layout.FLOW),
        windows=np.zeros(windows, layout.WINDOW),
        latencies=np.zeros(windows * len(layout.LATENCIES) * layout.BINS, np.int64),
    )
    return grown(_with_log(empty, logs=logs))


def _with_log(world: World, *, logs: bool) -> World:
    if logs:
        world.clock["logs"] = 1
    return world


def _zeros(count: int, kind: np.dtype[np.void]) -> layout.Records:
    """Records of which the first begins with a cache line."""
    room = np.zeros(count * kind.itemsize + layout.LINE_BYTES, np.uint8)
    begin = -room.ctypes.data % layout.LINE_BYTES
    return room[begin : begin + count * kind.itemsize].view(kind)


def _machines(pools: layout.Records) -> layout.Records:
    machines = _zeros(max(1, int(pools["replicas"].sum())), layout.MACHINE)
    for field in ("prefilling", "prefill_head", "prefill_tail", "queue_head", "queue_tail"):
        machines[field] = layout.NONE
    machines["alarm_s"] = machines["prefill_end_s"] = math.inf
    for at, pool in enumerate(pools):
        first, end = int(pool["first"]), int(pool["first"] + pool["replicas"])
        machines["pool"][first:end] = at
        numbers = np.arange(end - first)
        machines["places"][first:end] = pool["places_from"] + numbers * int(pool["cap"])
    return machines


def _width_s(sample: Sample, templates: layout.Records) -> float:
    """Width of a bucket such that it holds a few dozen entries when tasks arrive evenly."""
    if len(sample.arrival_s) < 2:
        return 1.0
    span_s = float(sample.arrival_s[-1] - sample.arrival_s[0])
    # A step rings some four times: when it starts, computes, writes and ends.
    rings = 4.0 * float(templates["steps"][sample.drawn].mean()) * len(sample.arrival_s)
    return max(1e-6, _PER_BUCKET * span_s / rings) if span_s > 0.0 else 1.0


def grown(world: World) -> World:
    """The same world with room for what comes: every array that was nearly full is doubled."""
    clock = world.clock[0]
    stride = int(clock["stride"])
    if clock["free_tasks"] < 1:
        world = _more_tasks(world, stride)
    if clock["free_attempts"] < stride:
        world = _more_attempts(world, max(_FIRST_TASKS, stride, len(world.attempts)))
    chunks = chunks_to_bring(world) + 2 * stride + 2
    if clock["free_chunks"] < chunks:
        world = _more_chunks(world, max(_FIRST_TASKS, 2 * chunks, len(world.chunk_next)))
    near = int(clock["near_n"] + clock["far_n"] + world.bucket_n.max()) + 4 * stride + 4
    if near > len(world.near):
        world = world._replace(near=_longer(world.near, near))
    if clock["far_n"] + 4 * stride + 4 > len(world.far):
        world = world._replace(far=_longer(world.far, int(clock["far_n"]) + 4 * stride + 4))
    if clock["fifo_n"] + 2 * stride + len(world.batch) + 2 > len(world.fifo):
        world = _longer_fifo(world, int(clock["fifo_n"]) + 2 * stride + len(world.batch) + 2)
    if clock["logs"]:
        # An outage tells of every replica, and of every attempt that it ends.
        clock["logs"] = len(world.machines) + len(world.attempts) + 4 * stride
        needed = int(clock["log_n"] + clock["logs"])
        if needed > len(world.log):
            world = world._replace(log=_longer(world.log, needed))
    return world


def _longer(records: layout.Records, needed: int) -> layout.Records:
    longer = np.zeros(max(needed, 2 * len(records)), records.dtype)
    longer[: len(records)] = records
    return longer


def _more_tasks(world: World, stride: int) -> World:
    old = len(world.tasks)
    new = max(_FIRST_TASKS, 2 * old)
    tasks = _zeros(new, layout.TASK)
    tasks[:old] = world.tasks
    tasks["next"][old:] = np.arange(old + 1, new + 1)
    tasks["next"][new - 1] = world.clock["free_task"][0]
    world.clock["free_task"] = old
    world.clock["free_tasks"] += new - old
    return world._replace(
        tasks=tasks,
        ended=_with_rows(world.ended, new * stride),
        blockers=_with_rows(world.blockers, new * stride),
        held=_with_rows(world.held, new * stride),
    )


def _with_rows(old: npt.NDArray[np.generic], rows: int) -> npt.NDArray[np.generic]:
    new = np.zeros(rows, old.dtype)
    new[: len(old)] = old
    return new


def _more_attempts(world: World, more: int) -> World:
    old = len(world.attempts)
    attempts = _zeros(old + more, layout.ATTEMPT)
    attempts[:old] = world.attempts
    attempts["next"][old:] = np.arange(old + 1, old + more + 1)
    attempts["next"][-1] = world.clock["free_attempt"][0]
    world.clock["free_attempt"] = old
    world.clock["free_attempts"] += more
    return world._replace(attempts=attempts, batch=np.zeros(old + more, np.int64))


def _more_chunks(world: World, more: int) -> World:
    old = len(world.chunk_next)
    entries = np.zeros((old + more) * CHUNK, layout.DUE)
    entries[: old * CHUNK] = world.entries
    following = np.zeros(old + more, np.int32)
    following[:old] = world.chunk_next
    following[old:] = np.arange(old + 1, old + more + 1)
    following[-1] = world.clock["free_chunk"][0]
    world.clock["free_chunk"] = old
    world.clock["free_chunks"] += more
    return world._replace(entries=entries, chunk_next=following)


def _longer_fifo(world: World, needed: int) -> World:
    """A ring of a power of two, with the oldest entry in front."""
    size = 1 << max(10, needed.bit_length())
    fifo = np.zeros(size, layout.DUE)
    count, start = int(world.clock["fifo_n"][0]), int(world.clock["fifo_from"][0])
    if count:
        fifo[:count] = world.fifo[(np.arange(count) + start) & (len(world.fifo) - 1)]
    world.clock["fifo_from"] = 0
    return world._replace(fifo=fifo)
