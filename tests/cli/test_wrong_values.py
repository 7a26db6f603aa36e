"""Values that make no sense are refused before the work, by option, value and cure, in one line."""

import os
import shutil
import socket
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import Run

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.store.workload_file import write_workload

_AGENT = "from steelyard import task\n\n@task()\nasync def idle(ctx):\n    pass\n"
_NOT_UTF8 = os.fsdecode(b"\xff\xfe")
_MEASURE = ("measure", "http://127.0.0.1:9/v1")
_KEY = ("keys", "create", "k", "--store", "keys.db")
_SYNTH = ("workload", "synth", "--rate", "1", "--tasks", "5", "--out", "o.parquet")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text(_AGENT, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no folder", encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


def _refused(run: Run, *arguments: str) -> str:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "agent.py:"), "agent.py: names no agent; write agent.py:AGENT, or agent.py"),
        (("run", "agent.py:idle", "--deadline", "0s"), "--deadline '0s' must be longer than 0"),
        (
            ("run", "agent.py:idle", "--deadline", "99999999d"),
            "--deadline '99999999d' is over a hundred years",
        ),
        (("run", "agent.py:idle", "--budget", "inf"), "--budget is inf USD; it must be greater"),
        (("run", "agent.py:idle", "--lease", "soon"), "--lease 'soon' is no duration; write"),
        (("run", "agent.py:idle", "--id", ""), "--id '' is no id; take 1 to 128 printable"),
        (("run", "agent.py:idle", "--id", "a\nb"), r"--id 'a\nb' is no id"),
        (("tasks", "show", _NOT_UTF8), "argument 3, '\\udcff\\udcfe', is not UTF-8; write it in"),
        (("reload", "--timeout", "-5s"), "--timeout '-5s' is no duration"),
        ((*_KEY, "--budget", "-1"), "--budget is -1 USD; it must be greater than 0"),
        ((*_KEY, "--tokens-per-min", "nan"), "--tokens-per-min is nan tokens; it must be"),
        ((*_KEY, "--expires", "0s"), "--expires '0s' must be longer than 0"),
        ((*_SYNTH, "--deadline", "-1"), "--deadline is -1; it must be a number above 0"),
        ((*_SYNTH, "--budget", "nan"), "--budget is nan; it must be a number above 0"),
        ((*_SYNTH, "--hourly", "nan"), "--hourly 'nan' must be numbers from 0 on"),
        ((*_SYNTH, "--burstiness", "inf"), "--burstiness is inf; take a number"),
        ((*_SYNTH, "--model", ""), "--model is empty; name the model"),
        ((*_MEASURE, "--prompts", "-1"), "--prompts -1 is not from 1 to 10,000,000; correct it"),
        ((*_MEASURE, "--cached", "nan"), "--cached nan is not from 0 to 1; correct it"),
        ((*_MEASURE, "--loads", "0"), "--loads 0 is not from 1 to 100,000; correct it"),
        ((*_MEASURE, "--replicas", "2"), "--replicas and --precision are those of `local`"),
        ((*_MEASURE, "--out", "folder"), "--out folder cannot be written: it is a folder"),
        (_MEASURE, "is not reachable: [Errno 111] Connect call failed ('127.0.0.1', 9); start it"),
        (("measure", "local", "--model", "gpt-9"), "--model 'gpt-9' is not what `local` runs"),
        (("top", "--once", "--url", ""), "--url '' must start with http:// or https://"),
        (("report", "p.json", "--growth", "1e12"), "--growth 1000000000000.0 must be a number"),
        (("report", "p.json", "--out", "none/r.md"), "there is no folder none; make it first"),
        (("plan", "--demand", "d.json", "--plots", "notes.txt"), "notes.txt is no folder; name"),
        (("plan", "--demand", "d.json", "--fleet-by-hour", "folder"), "name a file in it"),
        (("plan", "--demand", "d.json", "--out", "none/p.json"), "there is no folder none"),
        (("plan", "--demand", "d.json", "--out", "p" * 300), "written: File name too long; name"),
        (("plan", "--demand", "d.json", "--plots", "p" * 300), "written: File name too long; name"),
        (("apply", "p.json", "--to", "ray", "--out", "notes.txt"), "notes.txt is no folder"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(
    run: Run, arguments: tuple[str, ...], told: str, folder: Path
) -> None:
    del folder
    assert told in _refused(run, *arguments)


@pytest.fixture
def workload(folder: Path) -> Path:
    step = WorkloadStep(step_id=0, parents=(), kind="tool", name="look", tool="look", cpu_s=1.0)
    tasks = tuple(
        WorkloadTask(task_id=str(n), agent="a", arrival_s=60.0 * n, steps=(step,)) for n in range(3)
    )
    path = folder / "w.parquet"
    write_workload(Workload(name="w", tasks=tasks, source="test"), path)
    return path


def test_a_rate_beyond_what_the_solver_can_tell_apart_is_refused(run: Run, workload: Path) -> None:
    told = _refused(run, "plan", "--workload", str(workload), "--growth", "1e23")
    assert "growth factor is 1e+23; it must be a number above 0, at most 1e+09" in told


def test_a_fleet_without_pools_is_refused(run: Run, workload: Path) -> None:
    told = _refused(run, "simulate", "--workload", str(workload), "--fleet", "list.json")
    assert "--fleet list.json holds no pool; add one, or give a plan" in told


def test_a_report_refuses_a_file_of_another_sort(run: Run, workload: Path) -> None:
    assert run("plan", "--workload", str(workload), "--out", "p.json").code == 0
    shutil.copy("p.json", "q.json")
    (workload.parent / "m.json").write_bytes(msgspec.json.encode([{"t_s": 0.0, "label": "x"}]))
    ran = run("report", "p.json", "--simulation", "q.json")
    assert ran.code == 2
    assert "--simulation q.json is a plan; give a simulation, or use --against" in ran.err
    ran = run("report", "p.json", "--marks", "m.json")
    assert ran.code == 2
    assert "--marks m.json marks moments of a run; give its log, too" in ran.err


@pytest.mark.ray
def test_a_closed_port_is_told_at_once_where_ray_would_try_for_minutes(
    run: Run, workload: Path
) -> None:
    assert run("plan", "--workload", str(workload), "--out", "p.json").code == 0
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ran = run("apply", "p.json", "--to", "ray", "--ray-address", f"127.0.0.1:{port}", "--yes")
    assert ran.code == 2
    assert f"no Ray cluster answers at 127.0.0.1:{port} ([Errno 111]" in ran.err
