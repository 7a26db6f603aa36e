"""What is due, and when: a calendar queue with a small heap for the bucket of the moment.

Entries are thrown into buckets by time, unsorted. When the clock reaches a bucket, its entries go
into the heap `near`, which stays in the first-level cache. Alarms that were overtaken are dropped
on that occasion. Entries of the same moment leave in the order of entering, as
in the reference path. With one bucket this is a binary heap.
"""

from steelyard.sim.compiled.ahead import ask_ahead
from steelyard.sim.compiled.layout import ALARM, CHUNK, NONE, Records, World


def enter(world: World, t_s: float, code: int) -> None:
    """Enter something to be done at a time, or now if the time is past."""
    clock = world.clock[0]
    if t_s <= clock["now_s"]:
        enter_now(world, t_s, code)
        return
    clock["sequence"] += 1
    bucket = int(t_s / clock["width_s"])
    if bucket <= clock["bucket"]:
        _push_near(world, t_s, clock["sequence"], code)
    elif bucket - clock["bucket"] < len(world.bucket_head):
        _throw(world, bucket & (len(world.bucket_head) - 1), t_s, code)
    else:
        entry = world.far[clock["far_n"]]
        entry["t_s"] = t_s
        entry["sequence"] = clock["sequence"]
        entry["code"] = code
        clock["far_n"] += 1


def enter_now(world: World, t_s: float, code: int) -> None:
    """Enter something to be done after all that is due at this moment already."""
    clock = world.clock[0]
    entry = world.fifo[(clock["fifo_from"] + clock["fifo_n"]) & (len(world.fifo) - 1)]
    entry["t_s"] = t_s
    entry["code"] = code
    clock["fifo_n"] += 1


def take_now(world: World) -> int:
    """Place in `fifo` of the oldest entry of this moment, which is taken out."""
    clock = world.clock[0]
    at = clock["fifo_from"]
    clock["fifo_from"] = (at + 1) & (len(world.fifo) - 1)
    clock["fifo_n"] -= 1
    return int(at)


def look_ahead(world: World, until_s: float) -> None:
    """Open buckets that begin by a time until one holds something."""
    clock = world.clock[0]
    while (
        clock["near_n"] == 0
        and clock["pending"] + clock["far_n"] > 0
        and (clock["bucket"] + 1) * clock["width_s"] <= until_s
        and fits(world)
    ):
        _open_next(world)


def fits(world: World) -> bool:
    """Does the next bucket fit into the heap of the moment, and what is far off into buckets?"""
    clock = world.clock[0]
    at = (clock["bucket"] + 1) & (len(world.bucket_head) - 1)
    coming = world.bucket_n[at] + clock["near_n"]
    spare = 2 * clock["stride"] + 2
    if at == 0:
        coming += clock["far_n"]
        if chunks_to_bring(world) + spare > clock["free_chunks"]:
            return False
    return bool(coming + spare <= len(world.near))


def chunks_to_bring(world: World) -> int:
    """How many chunks can it take at most to throw all that is far off into buckets?"""
    far = world.clock[0]["far_n"]
    # Every bucket may begin one chunk and leave it all but empty.
    return int(min(far, len(world.bucket_head) + far // CHUNK))


def _open_next(world: World) -> None:
    clock = world.clock[0]
    clock["bucket"] += 1
    mask = len(world.bucket_head) - 1
    if clock["bucket"] & mask == 0:
        _bring_near(world)
    if clock["looks_ahead"]:
        ask_ahead(world)
    at = clock["bucket"] & mask
    count = world.bucket_n[at]
    if count == 0:
        return
    last = world.bucket_head[at]
    _drop_overtaken(world, last, count)
    chunk = last
    while chunk != NONE:
        filled = (count - 1) % CHUNK + 1 if chunk == last else CHUNK
        for place in range(chunk * CHUNK, chunk * CHUNK + filled):
            entry = world.entries[place]
            if entry["code"] != NONE:
                _push_near(world, entry["t_s"], entry["sequence"], entry["code"])
        following = world.chunk_next[chunk]
        world.chunk_next[chunk] = clock["free_chunk"]
        clock["free_chunk"] = chunk
        clock["free_chunks"] += 1
        chunk = following
    clock["pending"] -= count
    world.bucket_head[at] = NONE
    world.bucket_n[at] = 0


def _drop_overtaken(world: World, last: int, count: int) -> None:
    """Mark alarms that were overtaken. These reads do not wait for one another."""
    chunk = last
    while chunk != NONE:
        filled = (count - 1) % CHUNK + 1 if chunk == last else CHUNK
        for place in range(chunk * CHUNK, chunk * CHUNK + filled):
            entry = world.entries[place]
            if (
                entry["code"] & 3 == ALARM
                and world.machines[entry["code"] >> 2]["alarm_s"] != entry["t_s"]
            ):
                entry["code"] = NONE
        chunk = world.chunk_next[chunk]


def _bring_near(world: World) -> None:
    """Throw what was too far off into its bucket, once per round."""
    clock = world.clock[0]
    kept = 0
    buckets = len(world.bucket_head)
    for at in range(clock["far_n"]):
        entry = world.far[at]
        bucket = int(entry["t_s"] / clock["width_s"])
        if bucket - clock["bucket"] < buckets:
            _throw_old(world, bucket & (buckets - 1), at)
        else:
            world.far[kept] = world.far[at]
            kept += 1
    clock["far_n"] = kept


def _throw(world: World, bucket: int, t_s: float, code: int) -> None:
    entry = world.entries[_room_in(world, bucket)]
    entry["t_s"] = t_s
    entry["sequence"] = world.clock[0]["sequence"]
    entry["code"] = code


def _throw_old(world: World, bucket: int, far: int) -> None:
    world.entries[_room_in(world, bucket)] = world.far[far]


def _room_in(world: World, bucket: int) -> int:
    clock = world.clock[0]
    filled = world.bucket_n[bucket] % CHUNK
    if filled == 0:
        chunk = clock["free_chunk"]
        clock["free_chunk"] = world.chunk_next[chunk]
        clock["free_chunks"] -= 1
        world.chunk_next[chunk] = world.bucket_head[bucket]
        world.bucket_head[bucket] = chunk
    world.bucket_n[bucket] += 1
    clock["pending"] += 1
    return int(world.bucket_head[bucket] * CHUNK + filled)


def _push_near(world: World, t_s: float, sequence: int, code: int) -> None:
    clock = world.clock[0]
    near = world.near
    at = clock["near_n"]
    clock["near_n"] += 1
    while at > 0:
        parent = (at - 1) >> 1
        over = near[parent]
        if over["t_s"] < t_s or (over["t_s"] == t_s and over["sequence"] < sequence):
            break
        near[at] = near[parent]
        at = parent
    entry = near[at]
    entry["t_s"] = t_s
    entry["sequence"] = sequence
    entry["code"] = code


def pop_near(world: World) -> int:
    """Take out what is due first.

    Returns:
        Its code; its time is the time of `near[0]` before.
    """
    clock = world.clock[0]
    near = world.near
    code = near[0]["code"]
    count = clock["near_n"] - 1
    clock["near_n"] = count
    t_s, sequence = near[count]["t_s"], near[count]["sequence"]
    moved = near[count]["code"]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and _is_before(near, child + 1, child):
            child += 1
        under = near[child]
        if under["t_s"] > t_s or (under["t_s"] == t_s and under["sequence"] > sequence):
            break
        near[at] = near[child]
        at = child
    entry = near[at]
    entry["t_s"] = t_s
    entry["sequence"] = sequence
    entry["code"] = moved
    return int(code)


def _is_before(near: Records, one: int, other: int) -> bool:
    a, b = near[one], near[other]
    return bool(a["t_s"] < b["t_s"] or (a["t_s"] == b["t_s"] and a["sequence"] < b["sequence"]))
