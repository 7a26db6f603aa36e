"""Sums over the ledger's own records."""

import math

import pytest
from tests.dashboard.store_of_tasks import fill

from steelyard.dashboard.books import books_sheet, cost_by_day
from steelyard.ledger.ledger import Ledger
from steelyard.store.sqlite_log import read_events


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    path = tmp_path_factory.mktemp("books") / "log.db"
    fill(path, 200, now_s=1_800_000_000.0)
    return Ledger.of(read_events(path))


def test_days_agents_and_providers_add_up_to_the_ledger(ledger: Ledger) -> None:
    assert math.fsum(cost_by_day(ledger).values()) == pytest.approx(ledger.cost_usd)
    sheet = books_sheet(ledger)
    agents, providers, pools, days = sheet.grids
    ended = sum(int(row[1]) for row in agents.rows)
    assert (ended, len(ledger.tasks)) == (195, 195)
    assert sum(int(row[2]) for row in agents.rows) == len(ledger.open_tasks()) == 5
    attempts = len(ledger.attempts)
    assert sum(int(row[1]) for row in providers.rows) == attempts
    assert sum(int(row[3]) for row in pools.rows) == attempts
    assert sum(int(row[1]) for row in days.rows) == 195
    assert {grid.origin for grid in sheet.grids} == {"measured"}


def test_open_tasks_know_what_they_spent(ledger: Ledger) -> None:
    for task in ledger.open_tasks():
        spent = [one.cost_usd for one in ledger.attempts if one.step.task_id == task.task_id]
        assert task.cost_usd == pytest.approx(math.fsum(spent))


def test_a_ledger_without_anything_has_a_page() -> None:
    sheet = books_sheet(Ledger())
    assert sheet.days == ()
    assert all(not grid.rows for grid in sheet.grids)
