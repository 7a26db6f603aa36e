import math

import msgspec
import pytest
from tests.ledger.books import LLM, Books

from steelyard.domain.events import PoolAdded, ReplicaChanged, Usage
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.power import ReplicaFacts
from steelyard.ledger.run_figures import RunFigures, run_figures


@pytest.fixture
def figures() -> RunFigures:
    """Two calls that overlap on one of two replicas, one call of a vendor; ten seconds in all."""
    books = Books()
    books.open("t", 0.0)
    half = Usage(input_tokens=100, cached_tokens=50, wall_s=4.0, start_to_first_token_s=0.5)
    books.attempt("t", 0, times_s=(0.0, 1.0, 5.0), usage=half, cost_usd=0.004)
    books.attempt("t", 1, times_s=(0.0, 3.0, 9.0), cost_usd=0.006)
    books.attempt("t", 2, times_s=(9.0, 9.0, 10.0), pool="vendor", cost_usd=0.5)
    books.close("t", 10.0)
    facts = {"llm": ReplicaFacts(gpus=2, watts_idle=100.0, watts_max=300.0)}
    return run_figures(Ledger.of(books.events), facts)


def test_rent_counts_idle_machines_and_a_vendor_its_charge(figures: RunFigures) -> None:
    paid = {one.pool: one.paid_usd for one in figures.pools}
    assert paid == pytest.approx({"llm": 0.02, "tools": 0.005, "vendor": 0.5})
    assert figures.paid_usd == pytest.approx(math.fsum(paid.values()))
    assert figures.usd_per_task == pytest.approx(0.525)
    assert figures.used_usd_per_task == pytest.approx(0.51)


def test_what_overlaps_on_a_replica_is_busy_once(figures: RunFigures) -> None:
    llm = figures.pools[0]
    assert llm.busy_frac == pytest.approx(8.0 / 20.0)
    assert llm.utilisation_frac == pytest.approx(0.5)
    assert llm.cached_frac == pytest.approx(0.5)
    assert llm.gpu_hours == pytest.approx(2 * 2 * 10.0 / 3600.0)
    # 180 W at 40 % of the way from idle to full, two replicas, ten seconds.
    assert llm.energy_kwh == pytest.approx(180.0 * 2 * 10.0 / 3.6e6)
    assert figures.energy_kwh == llm.energy_kwh
    assert figures.pools[1].energy_kwh is None


def test_levels_over_time_add_up_to_what_ran_and_waited(figures: RunFigures) -> None:
    over = figures.over_time
    assert math.fsum(over.running["llm"]) * over.bucket_s == pytest.approx(4.0 + 6.0)
    assert math.fsum(over.waiting) * over.bucket_s == pytest.approx(1.0 + 3.0)
    assert over.running["llm"][20:29] == pytest.approx((2.0,) * 9)
    assert math.fsum(over.used_usd) == pytest.approx(0.51)
    assert (sum(over.tasks), sum(over.good_tasks)) == (1, 1)


def test_latencies_count_from_placement(figures: RunFigures) -> None:
    [step] = figures.steps
    assert step.ttft is not None
    assert (step.ttft.p50_s, step.count) == (1.5, 3)
    assert step.e2e.p50_s == pytest.approx(5.0)


def test_figures_over_time_add_up_to_those_in_total(figures: RunFigures) -> None:
    over = figures.over_time
    assert math.fsum(over.paid_usd) == pytest.approx(figures.paid_usd)
    assert math.fsum(over.gpu_hours) == pytest.approx(figures.gpu_hours)
    assert math.fsum(over.energy_kwh or ()) == pytest.approx(figures.energy_kwh)
    assert math.fsum(over.goodput_per_s) / 60 == pytest.approx(figures.goodput_per_s)
    assert over.slo_attainment_frac == (None,) * 59 + (1.0,)
    for pool in figures.pools:
        mine = over.pools[pool.pool]
        assert math.fsum(mine.rented) / 60 == pytest.approx(pool.rented_replicas)
        assert math.fsum(mine.paid_usd) == pytest.approx(pool.paid_usd)
        # The same rent all the time: the mean of the shares is the share of the whole.
        assert math.fsum(mine.utilisation_frac) / 60 == pytest.approx(pool.utilisation_frac)
        assert math.fsum(mine.busy_frac) / 60 == pytest.approx(pool.busy_frac)
    llm = over.pools["llm"]
    assert {one for one in llm.cached_frac if one is not None} == {0.5}
    [step] = over.steps
    assert [one.p50_s for one in step.e2e if one is not None] == [5.0, 9.0, 1.0]


def test_what_is_not_rented_costs_nothing_and_takes_no_energy() -> None:
    books = Books()
    books.events.append(
        ReplicaChanged(t_s=0.0, pool="llm", replica=1, up=False, reason="", rented=False)
    )
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 5.0))
    # The other one comes for the second half, and everything is twice as dear by then.
    dear = msgspec.structs.replace(LLM, usd_per_hour=2 * LLM.usd_per_hour)
    books.events.append(PoolAdded(t_s=5.0, spec=dear))
    books.events.append(
        ReplicaChanged(t_s=5.0, pool="llm", replica=1, up=False, reason="", rented=True)
    )
    books.close("t", 10.0)
    facts = {"llm": ReplicaFacts(gpus=1, watts_idle=100.0, watts_max=100.0)}
    llm = run_figures(Ledger.of(books.events), facts).pools[0]
    assert llm.rented_replicas == pytest.approx(1.5)
    # A thousandth of a dollar per second and replica at first.
    assert llm.paid_usd == pytest.approx(5 * 0.001 + 5 * 2 * 0.002)
    assert llm.busy_frac == pytest.approx(5.0 / 15.0)
    assert llm.energy_kwh == pytest.approx(100.0 * 15.0 / 3.6e6)
