import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steelyard.planner.cuts import residual_capacity


@given(
    loads=st.lists(st.floats(0.01, 3.0), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_cut_removes_the_fractional_point_and_no_whole_one(
    loads: list[float], data: st.DataObject
) -> None:
    size = len(loads)
    unit = st.lists(st.floats(0.0, 1.0), min_size=size, max_size=size)
    a, fractional = np.array(loads), np.array(data.draw(unit))
    used = float(a @ fractional)
    cut = residual_capacity(used, fractional, a)
    if cut is None:
        return
    mask, rest, at_most = cut
    assert float((mask * a) @ fractional) - rest * used > at_most
    other = np.array(data.draw(unit))
    machines = math.ceil(float(a @ other) - 1e-12)
    assert float((mask * a) @ other) - rest * machines <= at_most + 1e-9


def test_whole_machines_need_no_cut() -> None:
    assert residual_capacity(2.0, np.array([1.0, 1.0]), np.array([0.5, 1.5])) is None
