"""How many replicas a load needs."""

from hypothesis import given
from hypothesis import strategies as st

from steelyard.runtime.autoscaling import PoolLoad, ReplicaTarget, needed_replicas

COUNTS = st.integers(min_value=0, max_value=200)


def load(running: int = 0, waiting: int = 0, late: int = 0, up: int = 1) -> PoolLoad:
    return PoolLoad(running=running, waiting=waiting, late=late, up=up, slots=4)


@given(COUNTS, COUNTS, COUNTS)
def test_more_to_do_never_needs_fewer_replicas(running: int, waiting: int, late: int) -> None:
    need = needed_replicas(load(running, waiting, late))
    assert needed_replicas(load(running, waiting + 1, late)) >= need
    assert needed_replicas(load(running, waiting, late + 1)) >= need


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=40))
def test_stays_within_the_bounds(loads: list[tuple[int, int]]) -> None:
    target = ReplicaTarget((2, 5), idle_s=10.0)
    for second, (running, late) in enumerate(loads):
        assert 2 <= target.observe(load(running, late=late), float(second)) <= 5


def test_grows_at_once_and_shrinks_when_less_was_enough_for_long() -> None:
    target = ReplicaTarget((1, 8), idle_s=60.0)
    assert target.observe(load(running=4, waiting=8), 0.0) == 4
    assert target.observe(load(running=1), 30.0) == 4
    assert target.observe(load(running=4, waiting=2), 50.0) == 4
    # What was needed at 50 s is the most of the last minute.
    assert target.observe(load(), 100.0) == 2
    assert target.observe(load(), 111.0) == 1


def test_late_steps_need_room_beside_what_is_up() -> None:
    assert needed_replicas(load(running=2, late=5, up=3)) == 5
