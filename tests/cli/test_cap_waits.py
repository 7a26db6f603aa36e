"""`steelyard run` under a spend cap: the task waits, its worker is killed, another one goes on."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.test_reload import PROGRAM, upstreams
from tests.cli.test_spend_caps import cap, vendor

from steelyard.domain.events import AttemptFinished, StepRefused, StepWaiting, TaskFinished
from steelyard.store.sqlite_log import read_events

_AGENT = """
import steelyard

@steelyard.task()
async def asks(ctx, times: int):
    said = []
    for number in range(times):
        messages = [{"role": "user", "content": str(number)}]
        answer = await ctx.llm(messages, step="ask", max_output_tokens=3)
        said.append(answer.text)
    return said
"""


def _start(folder: Path, *asked: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [*PROGRAM, "run", *asked, "--config", "steelyard.toml", "--lease", "1s"],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def _line(process: subprocess.Popen[str], text: str) -> str:
    """The first line of its messages with this text."""
    assert process.stderr is not None
    while line := await asyncio.to_thread(process.stderr.readline):
        if text in line:
            return line
    raise AssertionError(f"it ended with {process.wait()}, and never said {text!r}")


def _tasks(folder: Path, *asked: str) -> str:
    command = [sys.executable, "-m", "steelyard", "tasks", *asked, "--store", "events.db"]
    return subprocess.run(  # noqa: S603
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout


async def test_a_task_outlasts_its_worker_while_it_waits_for_a_cap(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(_AGENT, encoding="utf-8")
    config = tmp_path / "steelyard.toml"
    async with upstreams("far", hold_s=0.0) as up, asyncio.timeout(100):
        config.write_text(cap(0.02) + vendor(up["far"]), encoding="utf-8")
        first = _start(tmp_path, "agent.py:asks", "--input", '{"times": 4}', "--id", "t")
        try:
            line = await _line(first, "waits for room")
            assert "(ask) waits for room under the spend cap of vendor, since " in line
            assert line.rstrip().endswith(" 00:00:00 UTC")
            shown = await asyncio.to_thread(_tasks, tmp_path, "show", "t")
            assert "agent asks, waiting" in shown
            assert "waits for room under the spend cap of vendor" in shown
        finally:
            first.send_signal(signal.SIGKILL)
            first.communicate()
        before = up["far"].served
        assert 0 < before < 4
        config.write_text(cap(1.0) + vendor(up["far"]), encoding="utf-8")
        second = _start(tmp_path, "agent.py")
        try:
            while "succeeded" not in await asyncio.to_thread(_tasks, tmp_path, "list"):
                assert second.poll() is None
        finally:
            second.send_signal(signal.SIGTERM)
            await asyncio.to_thread(second.communicate)
        assert up["far"].served == 4
    events = list(read_events(tmp_path / "events.db"))
    counts = [
        sum(isinstance(event, kind) for event in events)
        for kind in (AttemptFinished, StepRefused, StepWaiting, TaskFinished)
    ]
    assert counts == [4, 1, 1, 1]
