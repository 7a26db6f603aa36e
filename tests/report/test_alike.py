"""Figures beside each other have one unit, and the numbers that they had."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.report.alike import per_second_alike, seconds_alike, usd_alike

_SIZES = st.floats(1e-9, 1e9)
_MICRO, _DOLLAR = "µ$", "$"


def _value(told: str) -> float:
    found = re.search(r"[0-9][0-9,.]*(?:e[-+][0-9]+)?", told)
    assert found is not None
    return float(found.group().replace(",", ""))


def _unit(told: str) -> str:
    return re.sub(r"[-0-9,.e+]+", "", told).strip()


@given(st.lists(_SIZES, min_size=1, max_size=5))
def test_amounts_of_one_column_have_one_unit_and_keep_their_size(values: list[float]) -> None:
    told = usd_alike(values)
    (unit,) = {_unit(one) for one in told}
    assert unit in {_MICRO, _DOLLAR}
    factor = 1e-6 if unit == _MICRO else 1.0
    for one, value in zip(told, values, strict=True):
        assert _value(one) * factor == pytest.approx(value, rel=6e-3)


@given(st.lists(st.floats(1e-6, 1e7), min_size=1, max_size=5))
def test_durations_of_one_column_have_one_unit_and_keep_their_size(values: list[float]) -> None:
    told = seconds_alike(values)
    (unit,) = {_unit(one) for one in told}
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}[unit]
    for one, value in zip(told, values, strict=True):
        assert _value(one) * factor == pytest.approx(value, rel=6e-3)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5))
def test_rates_of_one_row_have_one_unit_and_keep_their_size(values: list[float]) -> None:
    told = per_second_alike(values, "tasks")
    (unit,) = {_unit(one) for one in told}
    factor = {"tasks/s": 1.0, "tasks/h": 1.0 / 3600.0}[unit]
    for one, value in zip(told, values, strict=True):
        assert _value(one) * factor == pytest.approx(value, rel=6e-3)


def test_what_is_missing_or_endless_is_told_and_sets_no_unit() -> None:
    assert usd_alike([None, 0.0002]) == ("-", "200 µ$")
    assert seconds_alike([math.inf, 0.5]) == ("unlimited", "500 ms")
    assert usd_alike([None, 0.0]) == ("-", "$0")
    assert per_second_alike([None, 0.0], "tasks") == ("-", "0 tasks/s")
