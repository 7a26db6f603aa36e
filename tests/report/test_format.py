import math

from hypothesis import given
from hypothesis import strategies as st

from steelyard.report.format import name, percent, seconds, significant, usd


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_money_is_shown_to_three_digits_or_to_the_cent(value: float) -> None:
    text = usd(value)
    micro = text.endswith(" µ$")
    shown = float(text.strip("$ µ").replace(",", "")) * (1e-6 if micro else 1.0)
    assert math.isclose(shown, value, rel_tol=0.006)
    assert "$" in text


@given(st.floats(min_value=1e-6, max_value=1e7))
def test_every_duration_has_a_unit_and_its_size(value: float) -> None:
    number, unit = seconds(value).split()
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}[unit]
    assert math.isclose(float(number.replace(",", "")) * factor, value, rel_tol=0.006)


@given(st.floats(min_value=0.0, max_value=1.0, exclude_max=True))
def test_a_missed_promise_never_shows_as_100_percent(frac: float) -> None:
    assert percent(frac) != "100 %"
    assert percent(frac).split()[0] != "100"


def test_a_number_that_rounds_up_to_the_next_decade_keeps_three_digits() -> None:
    assert significant(9.996) == "10.0"
    assert significant(0.09996) == "0.100"


def test_unknown_and_unlimited_are_written_in_words() -> None:
    assert significant(math.nan) == "unknown"
    assert significant(math.inf) == "unlimited"


@given(st.text())
def test_a_shown_name_is_one_line_that_xml_allows(text: str) -> None:
    shown = name(text, limit=20)
    assert len(shown) <= 20
    assert all(c.isprintable() or c == "\ufffd" for c in shown)
