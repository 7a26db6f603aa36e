"""When is an answer late, and how many second attempts may there be?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.decision import Decision
from steelyard.runtime.hedging import Hedges, Tail

DECISION = Decision(
    pool="p",
    replica=0,
    predicted_wait_s=0.5,
    predicted_ttft_s=1.5,
    predicted_finish_s=10.0,
    predicted_cached_tokens=0,
    predicted_output_tokens=10.0,
    predicted_cost_usd=1.0,
    bid_usd_per_hour=1.0,
    slack_s=None,
    policy="p",
    reason="",
    verdicts=(),
)


def with_slack(slack_s: float) -> Decision:
    return msgspec.structs.replace(DECISION, slack_s=slack_s)


def costing(usd: float) -> Decision:
    return msgspec.structs.replace(DECISION, predicted_cost_usd=usd)


def test_the_tail_begins_at_three_times_the_prediction_until_something_was_measured() -> None:
    assert Hedges(1.0).after_s(DECISION, streams=True) == 6.0
    assert Hedges(1.0).after_s(DECISION, streams=False) == 30.0


def test_it_then_begins_where_nineteen_of_twenty_answers_have_begun() -> None:
    hedges = Hedges(1.0)
    for number in range(100):
        hedges.began(DECISION, 2.0 * (1.0 + number / 50.0), streams=True)
    assert hedges.after_s(DECISION, streams=True) == pytest.approx(2.0 * 2.9)
    # Whole answers, and other pools, have tails of their own.
    assert hedges.after_s(DECISION, streams=False) == 30.0
    other = msgspec.structs.replace(DECISION, pool="q")
    assert hedges.after_s(other, streams=True) == 6.0


def test_half_of_a_short_slack_is_waited_for_unless_predictions_are_wrong_by_more() -> None:
    hedges = Hedges(1.0)
    assert hedges.after_s(with_slack(100.0), streams=True) == 6.0
    assert hedges.after_s(with_slack(8.0), streams=True) == 4.0
    assert hedges.after_s(with_slack(1.0), streams=True) == 2.5
    assert hedges.after_s(with_slack(-5.0), streams=True) == 2.5


@given(st.lists(st.floats(0.0, 1e6), max_size=500))
def test_a_tail_is_the_95th_percentile_of_the_last_200_within_bounds(ratios: list[float]) -> None:
    tail = Tail()
    for ratio in ratios:
        tail.add(ratio)
    last = sorted(ratios[-200:])
    expected = 3.0 if len(last) < 20 else min(20.0, max(1.5, last[int(0.95 * len(last))]))
    assert tail.factor == expected


def test_second_attempts_keep_to_their_share_of_the_steps() -> None:
    hedges, made = Hedges(0.02), 0
    for _ in range(1000):
        hedges.earn()
        if hedges.affords(DECISION, DECISION):
            hedges.take(DECISION, DECISION)
            made += 1
    assert made in (20, 21)


def test_a_dearer_second_attempt_counts_as_many_as_it_costs() -> None:
    hedges = Hedges(1.0)
    assert not hedges.affords(costing(1.0), costing(3.0))
    for _ in range(2):
        hedges.earn()
    assert hedges.affords(costing(1.0), costing(3.0))
    hedges.take(costing(1.0), costing(3.0))
    assert not hedges.affords(costing(1.0), costing(0.5))
    assert not hedges.affords(costing(0.0), costing(0.0))


def test_a_share_of_zero_is_off() -> None:
    hedges = Hedges(0.0)
    assert not hedges.on
    hedges.change(0.1)
    assert hedges.on
