import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.sim.sharing import SharedProgress


def test_nobody_ends_while_nothing_moves() -> None:
    shared: SharedProgress[str] = SharedProgress()
    shared.join(0.0, "one", 1.0)
    assert shared.next_s() == math.inf


@given(
    works=st.lists(st.floats(0.0, 1e3), min_size=1, max_size=10),
    rate=st.floats(1e-3, 1e3),
    start_s=st.floats(0.0, 1e6),
)
def test_members_end_in_the_order_of_their_work(
    works: list[float], rate: float, start_s: float
) -> None:
    shared: SharedProgress[int] = SharedProgress()
    shared.set_rate(start_s, rate)
    for member, work in enumerate(works):
        shared.join(start_s, member, work)
    ended: list[int] = []
    while len(shared):
        due_s = shared.next_s()
        came = shared.pop_due(due_s)
        assert came, "an announced end came"
        ended.extend(came)
        assert due_s == pytest.approx(start_s + works[came[-1]] / rate)
    assert ended == sorted(range(len(works)), key=lambda member: works[member])


def test_drain_tells_what_is_left() -> None:
    shared: SharedProgress[str] = SharedProgress()
    shared.set_rate(0.0, 2.0)
    shared.join(0.0, "long", 10.0)
    shared.join(1.0, "short", 4.0)
    assert shared.drain(2.0) == [("long", 6.0), ("short", 2.0)]
    assert len(shared) == 0
