from pathlib import Path

import pytest
from tests.ledger.books import LLM, Books

from steelyard.domain.decision import Refusal
from steelyard.domain.events import (
    BidChanged,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    StepRefused,
    TaskStatus,
    Usage,
)
from steelyard.domain.task import Step, ToolCall
from steelyard.ledger.ledger import Ledger
from steelyard.store.sqlite_log import SqliteEventLog, read_events


def test_an_empty_log_has_empty_books() -> None:
    ledger = Ledger()
    assert (ledger.cost_usd, ledger.rent_usd, ledger.span_s) == (0.0, 0.0, 0.0)
    assert (ledger.slo_attainment_frac, ledger.goodput_per_s) == (0.0, 0.0)


def test_costs_of_all_attempts_add_up_failed_ones_included() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 1.0, 2.0), cost_usd=0.1, outcome="failed")
    books.attempt("t", 0, times_s=(2.0, 2.0, 3.0), cost_usd=0.2, attempt=1)
    books.attempt("t", 1, times_s=(3.0, None, 4.0), outcome="cancelled")
    books.close("t", 5.0)
    ledger = Ledger.of(books.events)
    assert ledger.cost_usd == pytest.approx(0.3)
    (task,) = ledger.tasks
    assert task.cost_usd == ledger.cost_usd
    assert [one.outcome for one in ledger.attempts] == ["failed", "ok", "cancelled"]
    assert [one.started_s for one in ledger.attempts] == [1.0, 2.0, None]
    assert [one.latency_s for one in ledger.attempts] == [2.0, 1.0, 1.0]
    assert ledger.attempts[0].error_code == "pool_unavailable"


def test_many_small_costs_are_added_without_loss() -> None:
    books = Books()
    books.open("t", 0.0)
    for step_id in range(1000):
        books.attempt("t", step_id, times_s=(0.0, 0.0, 1.0), cost_usd=0.1)
    books.close("t", 1.0)
    ledger = Ledger.of(books.events)
    assert ledger.cost_usd == ledger.tasks[0].cost_usd == 100.0


@pytest.mark.parametrize(
    ("deadline_s", "budget_usd", "status", "met"),
    [
        (None, None, "succeeded", True),
        (10.0, 0.5, "succeeded", True),
        (9.999, None, "succeeded", False),
        (None, 0.499, "succeeded", False),
        (None, None, "failed", False),
        (None, None, "cancelled", False),
        (99.0, 9.0, "failed", False),
    ],
)
def test_a_task_met_its_slo_when_it_succeeded_in_time_and_inside_its_budget(
    deadline_s: float | None, budget_usd: float | None, status: TaskStatus, met: bool
) -> None:
    books = Books()
    books.open("t", 5.0, deadline_s=deadline_s, budget_usd=budget_usd)
    books.attempt("t", 0, times_s=(5.0, 5.0, 9.0), cost_usd=0.5)
    books.close("t", 10.0, status)
    ledger = Ledger.of(books.events)
    assert ledger.tasks[0].met_slo is met
    assert ledger.slo_attainment_frac == float(met)
    assert ledger.goodput_per_s == (0.2 if met else 0.0)


def test_rates_count_finished_tasks_from_the_first_arrival_to_the_last_end() -> None:
    books = Books()
    for number in range(4):
        books.open(f"t{number}", 100.0 + number)
    books.close("t0", 105.0)
    books.close("t1", 110.0, "failed")
    books.close("t2", 120.0)
    ledger = Ledger.of(books.events)
    assert ledger.span_s == 20.0
    assert ledger.slo_attainment_frac == pytest.approx(2 / 3)
    assert ledger.goodput_per_s == pytest.approx(0.1)


def test_rent_is_paid_for_idle_replicas_too_and_vendors_by_the_token() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), cost_usd=0.001)
    books.attempt("t", 1, times_s=(0.0, 0.0, 1.0), cost_usd=0.25, pool="vendor")
    books.close("t", 1000.0)
    ledger = Ledger.of(books.events)
    # Two replicas at 3.6 and one at 1.8 USD per hour for 1,000 s, and the vendor's bill.
    assert ledger.rent_usd == pytest.approx(2.0 + 0.5 + 0.25)
    assert ledger.cost_usd == pytest.approx(0.251)


def test_a_pool_that_left_costs_no_rent_until_it_is_back() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), cost_usd=0.001)
    books.events.append(PoolRemoved(t_s=250.0, pool="llm"))
    books.events.append(PoolAdded(t_s=500.0, spec=LLM))
    books.events.append(PoolRemoved(t_s=750.0, pool="llm"))
    books.close("t", 1000.0)
    ledger = Ledger.of(books.events)
    assert ledger.rents["llm"].replica_s(0.0, 1000.0) == LLM.replicas * 500.0
    assert ledger.rents["tools"].replica_s(0.0, 1000.0) == 1000.0
    assert ledger.rent_usd == pytest.approx(1.0 + 0.5)


def test_refusals_are_kept() -> None:
    books = Books()
    step = Step(task_id="t", step_id=0, agent="a", name="n", call=ToolCall(tool="t"))
    refusal = Refusal(cause="no_pool", earliest_finish_s=None, policy="p", verdicts=())
    books.events.append(StepRefused(t_s=1.0, step=step, refusal=refusal))
    assert [event.step for event in Ledger.of(books.events).refused] == [step]


def test_an_end_without_an_arrival_is_no_task() -> None:
    books = Books()
    books.close("unknown", 1.0)
    assert Ledger.of(books.events).tasks == []


def test_ledgers_are_equal_when_their_books_are() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), cost_usd=0.1)
    books.close("t", 2.0)
    whole = Ledger.of(books.events)
    # What does not move money leaves the books as they are.
    books.events.append(BidChanged(t_s=3.0, pool="llm", bid_usd_per_hour=9.0))
    books.events.append(ReplicaChanged(t_s=3.0, pool="llm", replica=0, up=False, reason=""))
    assert Ledger.of(books.events) == whole
    assert Ledger.of(books.events[:-3]) != whole
    assert whole != "a ledger"


def test_a_log_that_was_written_and_read_gives_the_same_books(tmp_path: Path) -> None:
    books, live = Books(), Ledger()
    for number in range(10):
        name = f"t{number}"
        books.open(name, float(number), deadline_s=number + 5.5, budget_usd=0.1 * number)
        usage = Usage(input_tokens=7, output_tokens=3, wall_s=0.1 + 0.2, cached_tokens=1)
        times_s = (number + 1 / 3, number + 0.5, number + 2 / 3)
        books.attempt(name, 0, times_s=times_s, usage=usage, cost_usd=0.1 / 3)
        books.close(name, number + 1.0)
    path = tmp_path / "log.db"
    with SqliteEventLog(path) as log:
        for event in books.events:
            log.append(event)
            live.apply(event)
    read = Ledger.of(read_events(path))
    assert read == live
    assert (read.cost_usd, read.rent_usd) == (live.cost_usd, live.rent_usd)
    assert read.slo_attainment_frac == live.slo_attainment_frac
