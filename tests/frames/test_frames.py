import math
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from tests.ledger.books import Books
from tests.strategies import workloads

import steelyard.frames
from steelyard import frames
from steelyard.config.catalog_table import load_catalog
from steelyard.domain.events import Usage
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import ConfigError
from steelyard.frames import TABLES
from steelyard.frames.column import Table
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet
from steelyard.store.workload_file import write_workload

# Names with numbers that say which one, not how much.
_NUMBERS = {"step_id", "attempt", "replica"}
_UNITS = {
    "_usd_per_hour": "USD per hour",
    "_usd": "USD",
    "_s": "s",
    "_tokens": "tokens",
    "_bytes": "bytes",
    "_frac": "fraction of 1",
}


@pytest.mark.parametrize("table", TABLES, ids=lambda one: one.name)
def test_every_column_has_a_meaning_and_every_quantity_a_unit(table: Table[Any]) -> None:
    names = [one.name for one in table.columns]
    assert len(set(names)) == len(names)
    assert table.row
    for one in table.columns:
        assert one.meaning, f"{table.name}.{one.name} says nothing"
        quantity = one.dtype in (pl.Float64, pl.Int64) and one.name not in _NUMBERS
        assert bool(one.unit) == quantity, f"{table.name}.{one.name}: write its unit down"
        suffix = next((end for end in _UNITS if one.name.endswith(end)), None)
        if suffix is not None:
            assert one.unit == _UNITS[suffix]


def test_every_table_has_its_function_and_every_column_is_listed() -> None:
    assert {table.name for table in TABLES} <= set(steelyard.frames.__all__)
    known = frames.columns()
    assert known.height == sum(len(table.columns) for table in TABLES)
    assert known.columns == ["table", "column", "type", "unit", "meaning"]


def test_a_frame_without_rows_has_the_columns_nevertheless() -> None:
    for table in TABLES:
        empty = table.frame(())
        assert (empty.height, empty.columns) == (0, [one.name for one in table.columns])


@given(workloads())
def test_a_workload_s_frames_hold_all_its_tasks_and_steps(workload: Workload) -> None:
    tasks, steps = frames.workload_tasks(workload), frames.workload_steps(workload)
    assert tasks["task_id"].to_list() == [task.task_id for task in workload.tasks]
    assert tasks["steps"].sum() == steps.height
    assert steps["cpu_s"].to_list() == [s.cpu_s for t in workload.tasks for s in t.steps]


def test_a_ledger_s_frames_say_what_the_ledger_says(tmp_path: Path) -> None:
    books = Books()
    books.open("t", 0.0, deadline_s=2.0)
    usage = Usage(input_tokens=5, output_tokens=2, wall_s=1.5, start_to_first_token_s=0.25)
    books.attempt("t", 0, times_s=(0.0, 0.5, 2.0), usage=usage, cost_usd=0.1)
    books.attempt("t", 1, times_s=(2.0, None, 3.0), pool="vendor", outcome="failed", cost_usd=0.2)
    books.close("t", 3.0)
    ledger = Ledger.of(books.events)
    (task,) = frames.ledger_tasks(ledger).to_dicts()
    assert (task["met_slo"], task["latency_s"]) == (False, 3.0)
    assert task["cost_usd"] == ledger.cost_usd
    first, second = frames.ledger_attempts(ledger).to_dicts()
    assert (first["wait_s"], first["ttft_s"], first["latency_s"]) == (0.5, 0.75, 2.0)
    assert (second["wait_s"], second["outcome"]) == (None, "failed")
    pools = frames.ledger_pools(ledger)
    assert pools["pool"].to_list() == ["llm", "tools", "vendor"]
    assert pools["used_usd"].to_list() == [0.1, 0.0, 0.2]
    assert pools["rent_usd"].to_list() == [
        ledger.rents["llm"].usd(0.0, 3.0),
        ledger.rents["tools"].usd(0.0, 3.0),
        None,
    ]
    workload = frames.read_workload(_written(tmp_path, ledger))
    assert frames.workload_steps(workload).height == 1


def test_a_plan_s_frames_say_what_the_plan_says(tmp_path: Path) -> None:
    plan = _plan()
    file = tmp_path / "plan.json"
    file.write_bytes(msgspec.json.encode(plan))
    read = frames.read_plan(file)
    machines = frames.plan_machines(read)
    assert dict(machines.select("offering", "machines").iter_rows()) == plan.fleet()
    assert math.fsum(machines["total_usd_per_hour"]) == pytest.approx(plan.rent_usd_per_hour)
    choices = frames.plan_choices(read)
    assert set(choices["step"]) == {"parse", "summarise"}
    assert set(choices["offering"]) <= set(machines["offering"])
    shares = choices.group_by("step_class").agg(pl.col("share_frac").sum())
    assert shares["share_frac"].to_list() == pytest.approx([1.0] * shares.height)
    baselines = frames.plan_baselines(read)
    assert baselines["baseline"].to_list() == [one.name for one in plan.baselines]
    for one in baselines.to_dicts():
        assert (one["usd_per_hour"] is None) == bool(one["infeasible"])


def _plan() -> FleetPlan:
    call = WorkloadStep(
        step_id=1,
        parents=(0,),
        kind="llm",
        name="summarise",
        model="smollm2-135m",
        prompt_tokens=400,
        output_tokens=30,
    )
    tool = WorkloadStep(step_id=0, parents=(), kind="tool", name="parse", tool="m:f", cpu_s=0.2)
    tasks = tuple(
        WorkloadTask(task_id=f"t{n}", agent="librarian", arrival_s=float(n), steps=(tool, call))
        for n in range(5)
    )
    workload = Workload(name="five", tasks=tasks, source="test")
    return plan_fleet(workload, load_catalog(), Slo(), PlanOptions(growth_factor=10.0))


def _written(folder: Path, ledger: Ledger) -> Path:
    write_workload(workload_of(ledger, "w", "s"), folder / "w.parquet")
    return folder / "w.parquet"


def test_what_is_no_plan_is_refused_with_the_cure(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(msgspec.json.encode({"a": 1}))
    with pytest.raises(ConfigError, match="steelyard plan --out"):
        frames.read_plan(file)
