"""A child's budget comes out of its parent's; nothing is spent twice, nor more than there is."""

import asyncio
import math
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.conftest import paid_worker

from steelyard.domain.events import (
    AttemptFinished,
    Event,
    StepRecorded,
    StepWaiting,
    TaskSubmitted,
    Usage,
)
from steelyard.errors import BudgetExceededError, StepFailedError
from steelyard.fleet.state import FleetState
from steelyard.ledger.ledger import Ledger
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task, tool
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.store.sqlite_log import SqliteEventLog, read_events

FREE = TaskLimits()


@tool()
def pay() -> int:
    """Costs something."""
    return 1


@task(name="spender")
async def spender(ctx: TaskContext, times: int) -> int:
    for _ in range(times):
        await ctx.tool(pay)
    return times


async def _unit_usd(folder: Path) -> float:
    """What one call costs."""
    with SqliteEventLog(folder / "unit.db") as store:
        async with paid_worker(store, spender) as worker:
            await worker.submit(spender, "t", FREE, {"times": 2})
            await asyncio.wait_for(worker.result("t"), 10)
        return store.cost_usd("t").result() / 2


def _costs(path: Path) -> dict[str, float]:
    costs: dict[str, float] = {}
    for event in read_events(path):
        if isinstance(event, AttemptFinished):
            costs[event.task_id] = costs.get(event.task_id, 0.0) + event.cost_usd
    return costs


async def test_what_a_child_spends_is_taken_off_its_parents_budget(
    path: Path, tmp_path: Path
) -> None:
    unit_usd = await _unit_usd(tmp_path)

    @task(name="parent")
    async def parent(ctx: TaskContext) -> str:
        await ctx.child(spender, FREE, 4)
        try:
            for _ in range(10):
                await ctx.tool(pay)
        except BudgetExceededError:
            return "refused"
        return "all"

    with SqliteEventLog(path) as store:
        async with paid_worker(store, parent, spender) as worker:
            limits = TaskLimits(budget_usd=8.5 * unit_usd)
            await worker.submit(parent, "t", limits, {})
            ended = await asyncio.wait_for(worker.result("t"), 20)
        assert math.isclose(store.cost_usd("t").result(), 8 * unit_usd, rel_tol=1e-6)
    assert (ended.status, ended.result) == ("succeeded", "refused")
    costs = _costs(path)
    assert math.isclose(costs["t.0"], 4 * unit_usd)
    assert math.isclose(costs["t"], 4 * unit_usd)
    ledger = Ledger.of(read_events(path))
    records = {record.task_id: record for record in ledger.tasks}
    assert math.isclose(records["t"].children_usd, costs["t.0"])
    assert math.isclose(ledger.cost_usd, sum(costs.values()))
    assert records["t"].met_slo


async def test_a_child_never_spends_more_than_is_left_and_its_parent_hears_why(
    path: Path, tmp_path: Path
) -> None:
    unit_usd = await _unit_usd(tmp_path)

    @task(name="parent")
    async def parent(ctx: TaskContext) -> str:
        for _ in range(3):
            await ctx.tool(pay)
        try:
            await ctx.child(spender, TaskLimits(budget_usd=1.0), 10)
        except BudgetExceededError as error:
            return str(error)
        return "all"

    with SqliteEventLog(path) as store:
        async with paid_worker(store, parent, spender) as worker:
            await worker.submit(parent, "t", TaskLimits(budget_usd=5.5 * unit_usd), {})
            ended = await asyncio.wait_for(worker.result("t"), 20)
    assert "child task t.3 of agent spender failed" in ended.result
    assert _costs(path)["t.3"] <= 2.5 * unit_usd
    children = [one for one in read_events(path) if isinstance(one, TaskSubmitted) and one.parent]
    assert [math.isclose(one.budget_usd or 0.0, 2.5 * unit_usd) for one in children] == [True]


async def test_a_childs_own_budget_that_is_too_small_is_the_childs_failure(
    path: Path, tmp_path: Path
) -> None:
    unit_usd = await _unit_usd(tmp_path)

    @task(name="parent")
    async def parent(ctx: TaskContext) -> str:
        try:
            await ctx.child(spender, TaskLimits(budget_usd=1.5 * unit_usd), 10)
        except StepFailedError as error:
            return str(error)
        return "all"

    with SqliteEventLog(path) as store:
        async with paid_worker(store, parent, spender) as worker:
            await worker.submit(parent, "t", TaskLimits(budget_usd=100 * unit_usd), {})
            ended = await asyncio.wait_for(worker.result("t"), 20)
    assert "child task t.0 of agent spender failed" in ended.result
    assert _costs(path)["t.0"] <= 1.5 * unit_usd


async def test_children_side_by_side_cannot_spend_the_same_money(
    path: Path, tmp_path: Path
) -> None:
    unit_usd = await _unit_usd(tmp_path)

    @task(name="parent")
    async def parent(ctx: TaskContext) -> list[str]:
        async def one() -> str:
            try:
                await ctx.child(spender, TaskLimits(budget_usd=4.5 * unit_usd), 4)
            except BudgetExceededError:
                return "refused"
            return "done"

        return await ctx.gather(*(one() for _ in range(4)))

    with SqliteEventLog(path) as store:
        async with paid_worker(store, parent, spender) as worker:
            await worker.submit(parent, "t", TaskLimits(budget_usd=10.0 * unit_usd), {})
            ended = await asyncio.wait_for(worker.result("t"), 20)
        assert store.cost_usd("t").result() <= 10.0 * unit_usd
    assert sorted(ended.result) == ["done", "done", "refused", "refused"]


async def test_a_restarted_parent_still_keeps_its_running_childs_money_apart(
    path: Path, tmp_path: Path
) -> None:
    unit_usd = await _unit_usd(tmp_path)
    gate, tried, reached = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @task(name="gated")
    async def gated(ctx: TaskContext) -> None:
        reached.set()
        await ctx.step(tried.wait)
        await ctx.tool(pay)

    @task(name="parent")
    async def parent(ctx: TaskContext) -> list[int]:
        async def beside() -> int:
            await ctx.step(gate.wait)
            paid = 0
            try:
                while paid < 20:
                    await ctx.tool(pay)
                    paid += 1
            except BudgetExceededError:
                return paid
            finally:
                tried.set()
            return paid

        async def child() -> int:
            await ctx.child(gated, TaskLimits(budget_usd=7.5 * unit_usd))
            return 1

        return await ctx.gather(child(), beside())

    with SqliteEventLog(path) as store:
        async with paid_worker(store, parent, gated) as worker:
            await worker.submit(parent, "t", TaskLimits(budget_usd=10.0 * unit_usd), {})
            await asyncio.wait_for(reached.wait(), 10)
        # Whatever stopping set does not count.
        tried.clear()
        gate.set()
        async with paid_worker(store, parent, gated) as worker:
            ended = await asyncio.wait_for(worker.result("t"), 20)
    # The first call of a new process is predicted from nothing, and may cost more than predicted.
    assert ended.result[1] <= 3


@given(
    children=st.lists(
        st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.booleans()), max_size=8
    )
)
@settings(max_examples=50, deadline=None)
def test_the_books_are_the_same_from_the_journal_as_live(
    children: list[tuple[float, float, bool]],
) -> None:
    events: list[Event] = [TaskSubmitted(t_s=0.0, task_id="t", agent="a", budget_usd=100.0)]
    begun: list[float] = []
    spent: list[float] = []
    for number, (reserved_usd, cost_usd, ended) in enumerate(children):
        place: dict[str, Any] = {
            "t_s": 0.0,
            "task_id": "t",
            "step_id": number,
            "path": str(number),
            "kind": "child",
            "name": "c",
            "fingerprint": "",
        }
        events.append(StepWaiting(**place, reserved_usd=reserved_usd))
        events.append(
            AttemptFinished(
                t_s=0.0,
                task_id="t",
                step_id=100 + number,
                attempt=0,
                outcome="ok",
                usage=Usage(),
                cost_usd=1.0,
            )
        )
        if ended:
            events.append(StepRecorded(**place, cost_usd=cost_usd))
            spent.append(cost_usd)
        else:
            begun.append(reserved_usd)
    live = FleetState()
    for event in events:
        live.apply(event)
    expected = math.fsum([*begun, *spent, float(len(children))])
    assert math.isclose(live.committed_usd("t"), expected, abs_tol=1e-9)
    assert math.isclose(live.spent_usd("t"), math.fsum(spent) + len(children), abs_tol=1e-9)
