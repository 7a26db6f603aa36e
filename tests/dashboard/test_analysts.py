"""Jobs in a process of their own: progress, time limit, cancelling, and its end."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.dashboard.store_of_tasks import fill

from steelyard.dashboard.analysts import AnalystClient, Job
from steelyard.dashboard.messages import Change, Question, Setup
from steelyard.dashboard.sheets import Sheet

_HIDDEN = "not-to-be-shown"


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    path = tmp_path_factory.mktemp("analysts") / "log.db"
    fill(path, 80)
    return Setup(where=str(path), password=_HIDDEN)


@pytest.fixture
async def client(setup: Setup) -> AsyncGenerator[AnalystClient, None]:
    made = AnalystClient(setup, limit_s=60.0)
    yield made
    await made.close()


async def _ended(client: AnalystClient, job: Job) -> Job:
    await client.wait(job, 60.0)
    assert job.ended
    return job


async def test_the_ledger_and_a_plan_come_from_one_process(client: AnalystClient) -> None:
    books = await _ended(client, client.start(Question(kind="books")))
    assert isinstance(books.sheet, Sheet)
    assert [grid.title for grid in books.sheet.grids][:2] == ["By agent", "By provider"]
    force = await _ended(client, client.start(Question(kind="in_force")))
    assert force.sheet is not None
    assert "No plan is in force" in force.sheet.notes[0]
    change = Change(scope="hardware:arm", price_factor=4.0, load_factor=2.0, deadline_factor=2.0)
    dearer = await _ended(client, client.start(Question(kind="what_if", change=change)))
    assert dearer.sheet is not None, dearer.error
    assert {grid.origin for grid in dearer.sheet.grids} == {"predicted"}
    (table,) = dearer.sheet.grids
    for figure, now, then in table.rows:
        if figure != "machines":
            assert now[0] == then[0] or now[-1] == then[-1], (figure, now, then)
    assert "which arrived within" in table.note


async def test_what_cannot_be_answered_says_why(setup: Setup, tmp_path: Path) -> None:
    no_plan = tmp_path / "plan.json"
    no_plan.write_text("{}")
    client = AnalystClient(Setup(where=str(tmp_path / "empty.db"), plan=str(no_plan)), limit_s=60.0)
    try:
        force = await _ended(client, client.start(Question(kind="in_force")))
        assert "is no plan" in force.error
        anew = await _ended(client, client.start(Question(kind="anew")))
        assert "no task has ended yet" in anew.error
        books = await _ended(client, client.start(Question(kind="books")))
        assert books.sheet is not None
    finally:
        await client.close()


async def test_a_cancelled_job_ends_and_the_next_one_is_answered(client: AnalystClient) -> None:
    job = client.start(Question(kind="anew"))
    async with asyncio.timeout(30.0):
        while job.done_frac == 0.0:
            await client.wait(job, 0.05)
    await client.cancel(job)
    assert (job.error, job.sheet) == ("cancelled", None)
    again = await _ended(client, client.start(Question(kind="books")))
    assert again.sheet is not None


async def test_a_job_that_takes_too_long_is_given_up(setup: Setup) -> None:
    client = AnalystClient(setup, limit_s=0.05)
    try:
        job = await _ended(client, client.start(Question(kind="anew")))
        assert "given up" in job.error
    finally:
        await client.close()


async def test_newer_questions_take_the_place_of_those_that_wait(client: AnalystClient) -> None:
    jobs = [client.start(Question(kind="books")) for _ in range(3)]
    await _ended(client, jobs[2])
    assert sum("took its place" in job.error for job in jobs) >= 1
    assert jobs[2].sheet is not None


def test_the_gateway_loads_no_pages_planner_or_plots_before_they_are_asked_for() -> None:
    code = (
        "import sys, steelyard.dashboard.mount, steelyard.gateway.server\n"
        "assert not {'jinja2', 'highspy', 'matplotlib'} & set(sys.modules)\n"
        "assert 'steelyard.dashboard.app' not in sys.modules\n"
        "import steelyard.dashboard.app\n"
        "assert not {'highspy', 'matplotlib', 'steelyard.planner.plan'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code
    assert _HIDDEN not in repr(Setup(where="w", password=_HIDDEN))
