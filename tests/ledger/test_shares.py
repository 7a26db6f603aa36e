from hypothesis import given
from hypothesis import strategies as st
from tests.ledger.books import Books

from steelyard.ledger.ledger import Ledger
from steelyard.ledger.power import ReplicaFacts
from steelyard.ledger.run_figures import run_figures
from steelyard.ledger.shares import attainment_range, energy_range, provider_shares


def ledger() -> Ledger:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1800.0), cost_usd=0.5)
    books.close("t", 3600.0)
    return Ledger.of(books.events)


def test_energy_lies_between_idle_and_full_power_and_names_what_it_leaves_out() -> None:
    facts = {"llm": ReplicaFacts(watts_idle=100.0, watts_max=300.0)}
    found = energy_range(run_figures(ledger(), facts), facts)
    assert found is not None
    # Two replicas for an hour; one of them busy for half of it.
    assert (found.idle_kwh, found.estimate_kwh, found.full_kwh) == (0.2, 0.3, 0.6)
    assert found.unknown == ("tools", "vendor")


def test_energy_without_any_source_is_unknown() -> None:
    assert energy_range(run_figures(ledger()), {}) is None


def test_provider_shares_sum_to_one() -> None:
    books = ledger()
    shares = provider_shares(run_figures(books), books.pools)
    assert sum(share for _, share in shares.values()) == 1.0


@given(ended=st.integers(1, 10_000), met=st.integers(0, 10_000))
def test_the_interval_holds_the_measured_attainment(ended: int, met: int) -> None:
    bounds = attainment_range(min(met, ended), ended)
    assert bounds is not None
    assert 0.0 <= bounds[0] <= min(met, ended) / ended + 1e-12
    assert min(met, ended) / ended - 1e-12 <= bounds[1] <= 1.0


def test_no_task_has_no_interval() -> None:
    assert attainment_range(0, 0) is None
