import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import FigureError
from steelyard.perf.roofline import RooflineCase, calibrate_roofline, held_out_errors


def case(machine: str, silicon: str, model: str, ideal_s: float) -> RooflineCase:
    return RooflineCase(
        machine=machine,
        silicon=silicon,
        hardware="arm",
        model=model,
        ideal_s=ideal_s,
        features=(math.log(ideal_s),),
    )


@given(st.floats(0.2, 20.0))
def test_a_constant_share_of_the_peak_is_recovered(share: float) -> None:
    cases = [case(f"m{i}", f"s{i % 3}", f"model{i % 2}", 0.01 * (i + 1)) for i in range(12)]
    measured = [share * c.ideal_s for c in cases]
    roofline = calibrate_roofline(cases, measured)
    unseen = case("new", "unseen", "model0", 0.033)
    assert roofline.predict_s(unseen) == pytest.approx(share * 0.033, rel=1e-3)
    errors = held_out_errors(cases, measured, [c.silicon for c in cases])
    assert max(errors) < 1e-3


def test_a_slow_silicon_is_known_by_its_own_effect() -> None:
    cases = [case(f"m{i}", "slow" if i % 2 else "fast", "a", 0.01) for i in range(40)]
    measured = [0.04 if c.silicon == "slow" else 0.01 for c in cases]
    roofline = calibrate_roofline(cases, measured)
    slow, fast = (roofline.predict_s(case("n", s, "a", 0.01)) for s in ("slow", "fast"))
    assert slow == pytest.approx(0.04, rel=0.15)
    assert fast == pytest.approx(0.01, rel=0.15)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(FigureError):
        calibrate_roofline([], [])
