import pytest
from tests.ledger.books import Books

from steelyard.domain.events import Usage
from steelyard.ledger.accuracy import prediction_ratios
from steelyard.ledger.ledger import Ledger


def test_ratios_are_measured_over_predicted_for_time_first_token_and_cost() -> None:
    books = Books()
    books.open("t", 0.0)
    for step_id, took_s in enumerate((1.0, 2.0, 3.0)):
        usage = Usage(wall_s=took_s, start_to_first_token_s=0.2)
        times_s = (0.0, 0.0, took_s)
        books.attempt("t", step_id, times_s=times_s, usage=usage, cost_usd=0.0005)
    books.attempt("t", 9, times_s=(0.0, 0.0, 99.0), outcome="failed")
    books.close("t", 99.0)
    every = [one for one in prediction_ratios(Ledger.of(books.events)) if not one.step]
    assert {one.count for one in every} == {3}
    medians = {one.quantity: one.p50 for one in every}
    assert medians == pytest.approx({"step time": 2.0, "first token": 2.0, "cost": 0.5})


def test_a_log_without_attempts_has_no_ratios() -> None:
    assert prediction_ratios(Ledger()) == ()
