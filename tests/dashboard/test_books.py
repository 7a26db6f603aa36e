"""Sums over the ledger's own records."""

import copy
import math
from pathlib import Path

import pytest
from tests.dashboard.store_of_tasks import fill

from steelyard.dashboard.books import (
    books_sheet,
    cost_by_day,
    pool_grid,
    provider_grid,
    rents_usd,
)
from steelyard.domain.events import PoolRemoved, TaskFinished
from steelyard.domain.units import rental_usd
from steelyard.ledger.ledger import Ledger
from steelyard.report.format import usd
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


def test_a_pool_that_left_is_paid_for_the_time_that_it_was_there(ledger: Ledger) -> None:
    pool, spec = max(ledger.pools.items(), key=lambda one: one[1].usd_per_hour)
    half = copy.deepcopy(ledger)
    half.apply(PoolRemoved(t_s=0.5 * (ledger.first_s + ledger.last_s), pool=pool))
    rows = {row[0]: row for row in pool_grid(half).rows}
    whole_usd = rental_usd(spec.usd_per_hour * spec.replicas, ledger.span_s)
    assert rows[pool][5] == usd(0.5 * whole_usd)
    others = [row[3] for row in provider_grid(half).rows if row[0] != spec.provider]
    before = [row[3] for row in provider_grid(ledger).rows if row[0] != spec.provider]
    assert sorted(others) == sorted(before)
    paid = next(row[3] for row in provider_grid(half).rows if row[0] == spec.provider)
    rest_usd = (
        half.rent_usd
        - ledger.rent_usd
        + math.fsum(
            ledger.rents[name].usd(ledger.first_s, ledger.last_s)
            for name, one in ledger.pools.items()
            if one.provider == spec.provider
        )
    )
    assert paid == usd(rest_usd)


def test_what_open_tasks_used_is_paid_for(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "open.db"
    fill(path, 60, now_s=1_800_000_000.0)
    events = read_events(path)
    # Nothing has ended but attempts: the rent of their time is due all the same.
    going_on = Ledger.of([event for event in events if not isinstance(event, TaskFinished)])
    rents = rents_usd(going_on)
    begun_s = min(one.placed_s for one in going_on.attempts)
    ended_s = max(one.finished_s for one in going_on.attempts)
    for pool, spec in going_on.pools.items():
        whole_usd = rental_usd(spec.usd_per_hour * spec.replicas, ended_s - begun_s)
        assert rents[pool] == pytest.approx(whole_usd)
    assert rents_usd(ledger).keys() == ledger.pools.keys()


def test_open_tasks_know_what_they_spent(ledger: Ledger) -> None:
    for task in ledger.open_tasks():
        spent = [one.cost_usd for one in ledger.attempts if one.step.task_id == task.task_id]
        assert task.cost_usd == pytest.approx(math.fsum(spent))


def test_the_ledger_says_of_which_time_it_is(ledger: Ledger) -> None:
    span = books_sheet(ledger).tiles[0]
    assert span.label == "time span"
    assert span.note == "2027-01-15 06:20 to 2027-01-15 07:59 UTC"


def test_a_ledger_without_anything_has_a_page() -> None:
    sheet = books_sheet(Ledger())
    assert sheet.tiles[0].note == "nothing has ended yet"
    assert sheet.days == ()
    assert all(not grid.rows for grid in sheet.grids)
