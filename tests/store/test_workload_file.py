import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from tests.strategies import workloads

from steelyard.domain.workload import Workload
from steelyard.errors import WorkloadError
from steelyard.store.workload_file import read_workload, write_workload

# The columns of public agent traces, in their types; `arrival_s` is empty in all of them.
_TRACE_SCHEMA = {
    "task_id": pl.String(),
    "step_id": pl.Int32(),
    "parents": pl.List(pl.Int32()),
    "kind": pl.String(),
    "arrival_s": pl.Float64(),
    "start_s": pl.Float64(),
    "llm_s": pl.Float32(),
    "think_or_tool_s": pl.Float32(),
    "prompt_tokens": pl.Int32(),
    "output_tokens": pl.Int32(),
    "cached_tokens": pl.Int32(),
    "shared_prefix_tokens": pl.Int32(),
    "cpu_s": pl.Float32(),
    "mem_mb": pl.Float32(),
    "model": pl.String(),
    "tool": pl.String(),
    "success": pl.Boolean(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


def _write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _row(**values: Any) -> dict[str, Any]:
    return {"task_id": "t", "step_id": 0, "kind": "tool", **values}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@given(workload=workloads())
@settings(max_examples=80, deadline=None)
def test_a_workload_is_read_as_it_was_written(
    workload: Workload, suffix: str, folder: Path
) -> None:
    path = folder / f"any{suffix}"
    write_workload(workload, path)
    read = read_workload(path)
    assert read.tasks == workload.tasks
    assert (read.name, read.source) == ("any", str(path))


def test_a_public_trace_is_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"task_id": "repo-1", "step_id": 0, "parents": [], "kind": "llm", "start_s": 0.0}
        | {"llm_s": 7.25, "prompt_tokens": 13361, "output_tokens": 334, "model": "glm"}
        | {"shared_prefix_tokens": 0, "cpu_s": 0.125, "mem_mb": 193.0},
        {"task_id": "repo-1", "step_id": 1, "parents": [0], "kind": "tool", "start_s": 7.25}
        | {"think_or_tool_s": 2.0, "cpu_s": 0.5, "mem_mb": 193.0, "tool": "Bash"},
        {"task_id": "repo-1", "step_id": 2, "parents": [1], "kind": "human"}
        | {"think_or_tool_s": 30.0, "success": False},
    ]
    path = tmp_path / "agents.parquet"
    pl.DataFrame(rows, schema=_TRACE_SCHEMA).write_parquet(path)
    (task,) = read_workload(path).tasks
    llm, tool, human = task.steps
    assert (task.agent, task.arrival_s, task.deadline_after_s) == ("agents", 0.0, None)
    assert (llm.prompt_tokens, llm.output_tokens, llm.recorded_s) == (13361, 334, 7.25)
    assert (llm.model, llm.name, llm.cached_tokens) == ("glm", "llm", None)
    assert (tool.name, tool.tool, tool.parents) == ("Bash", "Bash", (0,))
    assert tool.memory_bytes == 193 * 1024 * 1024
    # The recorded duration of a tool holds its CPU time; simulated are both, one after the other.
    assert (tool.cpu_s, tool.think_or_tool_s, tool.recorded_s) == (0.5, 1.5, 2.0)
    assert human.think_or_tool_s == 30.0


def test_tasks_come_in_order_of_arrival_and_steps_in_order_of_number(tmp_path: Path) -> None:
    path = _write_rows(
        tmp_path / "w.jsonl",
        _row(task_id="late", arrival_s=9.0),
        _row(task_id="soon", step_id=1, parents=[0], arrival_s=2.0),
        _row(task_id="soon", step_id=0, arrival_s=2.0),
    )
    tasks = read_workload(path).tasks
    assert [task.task_id for task in tasks] == ["soon", "late"]
    assert [step.step_id for step in tasks[0].steps] == [0, 1]


def test_a_column_that_is_empty_in_many_first_rows_is_read(tmp_path: Path) -> None:
    rows = [_row(step_id=n, kind="llm", cpu_s=None) for n in range(300)]
    path = _write_rows(tmp_path / "w.jsonl", *rows, _row(step_id=300, cpu_s=1.5))
    (task,) = read_workload(path).tasks
    assert task.steps[-1].cpu_s == 1.5


def test_whole_numbers_may_be_stored_as_floats(tmp_path: Path) -> None:
    path = _write_rows(tmp_path / "w.jsonl", _row(step_id=0.0, kind="llm", prompt_tokens=7.0))
    (task,) = read_workload(path).tasks
    assert (task.steps[0].step_id, task.steps[0].prompt_tokens) == (0, 7)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"step_id": None}, "step None: step_id is missing"),
        ({"step_id": 1.5}, "step 1.5: step_id is 1.5; it must be a whole number"),
        ({"step_id": -1}, "step_id is -1; it must be a finite number >= 0"),
        ({"kind": "robot"}, "kind is 'robot'; it must be llm, tool or human"),
        ({"kind": None}, "kind is None"),
        ({"parents": 3}, "parents is 3; it must be a list"),
        ({"parents": [5]}, "has 5 in parents, which is no earlier step"),
        ({"parents": [0]}, "has 0 in parents, which is no earlier step"),
        ({"parents": ["x"]}, "parents is 'x'; it must be a number"),
        ({"parents": [None]}, "parents is missing"),
        ({"prompt_tokens": -7}, "prompt_tokens is -7; it must be a finite number >= 0"),
        ({"prompt_tokens": "7"}, "prompt_tokens is '7'; it must be a number"),
        ({"output_tokens": 7.5}, "output_tokens is 7.5; it must be a whole number"),
        ({"cached_tokens": -1}, "cached_tokens is -1"),
        ({"cpu_s": -0.5}, "cpu_s is -0.5"),
        ({"cpu_s": True}, "cpu_s is True; it must be a number"),
        ({"mem_mb": "lots"}, "mem_mb is 'lots'"),
        ({"think_or_tool_s": "long"}, "think_or_tool_s is 'long'"),
        ({"wait_s": -1.0}, "wait_s is -1.0"),
        ({"arrival_s": "noon"}, "arrival_s is 'noon'; it must be a number"),
        ({"arrival_s": -1.0}, "arrival_s is -1.0"),
        ({"deadline_after_s": "soon"}, "deadline_after_s is 'soon'"),
        ({"budget_usd": -1}, "budget_usd is -1"),
    ],
)
def test_a_wrong_value_is_named_by_file_task_step_and_column(
    values: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = _write_rows(tmp_path / "wrong.jsonl", _row(**values))
    with pytest.raises(WorkloadError) as caught:
        read_workload(path)
    message = str(caught.value)
    assert message.startswith(f"workload {path}: task t step {values.get('step_id', 0)}")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_of_seconds_is_named(value: float, tmp_path: Path) -> None:
    path = tmp_path / "wrong.parquet"
    pl.DataFrame([_row(llm_s=value, kind="llm")]).write_parquet(path)
    with pytest.raises(WorkloadError, match=f"task t step 0: llm_s is {value}"):
        read_workload(path)


def test_a_row_without_a_task_is_named_by_its_number(tmp_path: Path) -> None:
    path = _write_rows(tmp_path / "w.jsonl", _row(), _row(task_id=None))
    with pytest.raises(WorkloadError, match=r"w\.jsonl: row 2 has no task_id"):
        read_workload(path)


def test_a_step_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = _write_rows(tmp_path / "w.jsonl", _row(), _row())
    with pytest.raises(WorkloadError, match="task t step 0 is there twice"):
        read_workload(path)


@pytest.mark.parametrize("column", ["task_id", "step_id", "kind"])
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    row = _row()
    del row[column]
    path = _write_rows(tmp_path / "w.jsonl", row)
    with pytest.raises(WorkloadError, match=f"lacks the column {column}"):
        read_workload(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("torn.parquet", b"PAR1 and then nothing of the kind PAR1"),
        ("torn.jsonl", b'{"task_id": '),
        ("binary.jsonl", b"\xff\xfe\x00"),
        ("empty.jsonl", b""),
        ("empty.parquet", b""),
        ("table.csv", b"task_id,step_id,kind\nt,0,llm\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WorkloadError) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"workload {path} cannot be read as ")
    assert "\n" not in str(caught.value)


def test_a_workload_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    pl.DataFrame([_row(step_id=n) for n in range(1000)]).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WorkloadError, match=r"cut\.parquet cannot be read"):
        read_workload(path)


def test_a_missing_file_and_a_file_without_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"gone\.parquet does not exist"):
        read_workload(tmp_path / "gone.parquet")
    path = tmp_path / "none.parquet"
    pl.DataFrame([], schema=_TRACE_SCHEMA).write_parquet(path)
    with pytest.raises(WorkloadError, match=r"none\.parquet holds no task"):
        read_workload(path)
