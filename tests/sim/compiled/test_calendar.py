"""The calendar gives out what is due in order, whatever the width of its buckets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.calendar import enter, fits, look_ahead, pop_near
from steelyard.sim.compiled.tables import Sample
from steelyard.sim.compiled.worlds import grown, make_world
from steelyard.sim.conditions import Conditions

GAP_CODE = layout.GAP


@pytest.fixture(scope="module")
def parts(workload: Workload, fleet: tuple[PoolSpec, ...]) -> tuple[Sample, tuple[PoolSpec, ...]]:
    return Sample.of(workload), fleet


@settings(deadline=None)
@given(
    times=st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=60),
    width_s=st.sampled_from([1e-3, 0.7, 50.0, 1e7]),
)
def test_entries_leave_in_order_of_time_then_of_entering(
    parts: tuple[Sample, tuple[PoolSpec, ...]], times: list[float], width_s: float
) -> None:
    world = make_world(*parts, Conditions(), "cheapest_feasible", 0, (60.0, 1, False))
    # Few buckets, so that entries wait far off and rounds are many.
    world = grown(
        world._replace(bucket_head=np.full(64, -1, np.int32), bucket_n=np.zeros(64, np.int32))
    )
    world.clock["width_s"] = max(width_s, max(times) / 2000.0)
    for number, t_s in enumerate(times):
        enter(world, t_s, (number << 2) | GAP_CODE)
    order: list[int] = []
    while True:
        look_ahead(world, math.inf)
        if world.clock["near_n"][0] == 0:
            break
        world.clock["now_s"] = world.near[0]["t_s"]
        order.append(pop_near(world) >> 2)
    assert order == sorted(range(len(times)), key=lambda at: (times[at], at))


def test_gaps_that_end_together_far_off_are_all_kept(
    parts: tuple[Sample, tuple[PoolSpec, ...]],
) -> None:
    world = make_world(*parts, Conditions(), "cheapest_feasible", 0, (60.0, 1, False))
    world.clock["width_s"] = 1.0
    # All beyond the first round of buckets, each in a bucket of its own in the second.
    first = len(world.bucket_head)
    count = int(world.clock["free_chunks"][0]) * 2
    assert count < first
    for number in range(count):
        if world.clock["far_n"][0] == len(world.far):
            world = grown(world)
        enter(world, first + number + 0.5, (number << 2) | GAP_CODE)
    order: list[int] = []
    while len(order) < count:
        look_ahead(world, math.inf)
        if world.clock["near_n"][0] == 0:
            assert not fits(world)
            world = grown(world)
            continue
        world.clock["now_s"] = world.near[0]["t_s"]
        order.append(pop_near(world) >> 2)
    assert order == list(range(count))
    assert world.clock["pending"][0] == world.clock["far_n"][0] == 0
