import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.errors import FigureError
from steelyard.perf.fit import decode_alone, fit_itl, fit_prefill
from steelyard.perf.predict import shared_itl_s


@given(
    base_s=st.floats(0.001, 0.2),
    slope_s=st.floats(0.0, 0.05),
    loads=st.lists(st.floats(0.5, 100.0), min_size=3, max_size=8, unique=True),
)
def test_points_on_a_line_give_the_line_back(
    base_s: float, slope_s: float, loads: list[float]
) -> None:
    fit = fit_itl(loads, [base_s + slope_s * c for c in loads])
    for c in loads:
        assert fit.at(c) == pytest.approx(base_s + slope_s * c, rel=1e-3)


@given(
    base_s=st.floats(0.001, 0.2),
    slope_s=st.floats(0.0, 0.05),
    share_s=st.floats(0.0, 0.1),
    streams=st.floats(1.0, 100.0),
)
def test_decode_alone_with_the_prefill_of_others_gives_the_sweep_back(
    base_s: float, slope_s: float, share_s: float, streams: float
) -> None:
    base, slope, is_clamped = decode_alone(base_s, slope_s, share_s)
    measured_s, at_load_s = base_s + slope_s * streams, shared_itl_s(base, slope, streams, share_s)
    assert slope >= 0.0
    assert base + slope == pytest.approx(base_s + slope_s)
    assert is_clamped == (share_s > slope_s)
    if is_clamped:
        assert at_load_s >= measured_s * (1 - 1e-9)
    else:
        assert at_load_s == pytest.approx(measured_s)


def test_one_load_gives_a_flat_line_without_an_error() -> None:
    fit = fit_itl([1.0], [0.02])
    assert (fit.base_s, fit.slope_s, fit.loo_error_frac) == (0.02, 0.0, None)


def test_itl_never_falls_with_load() -> None:
    assert fit_itl([1.0, 2.0], [0.03, 0.02]).slope_s == 0.0


def test_the_left_out_point_is_not_used_for_its_own_prediction() -> None:
    fit = fit_itl([1.0, 2.0, 3.0], [0.01, 0.04, 0.03])
    assert fit.loo_error_frac == pytest.approx(0.5)


def test_one_prompt_length_charges_all_to_the_tokens() -> None:
    fit = fit_prefill([256], [0.256])
    assert fit.floor_s == 0.0
    assert fit.s_per_token == pytest.approx(0.001)


@pytest.mark.parametrize("bad", [[], [0.0], [-0.1]])
def test_refuses_missing_or_impossible_points(bad: list[float]) -> None:
    with pytest.raises(FigureError):
        fit_itl([1.0] * len(bad), bad)
    with pytest.raises(FigureError):
        fit_prefill([256.0] * len(bad), bad)
