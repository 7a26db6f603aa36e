"""The examples as a user runs them: `steelyard run` in a process, on the embedded models."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from steelyard.config.figures_file import FORMAT, FiguresFile, write_figures
from steelyard.domain.events import AttemptFinished, Event, StepPlaced, StepRecorded, TaskResumed
from steelyard.domain.pool import LlmCurve
from steelyard.errors import SandboxUnavailableError
from steelyard.pools.sandbox.confinement import SandboxLimits
from steelyard.pools.sandbox.launch import find_sandbox
from steelyard.store.open_store import open_store

EXAMPLES = Path(__file__).parents[2] / "examples"
_WAIT_S = 200.0
_STORE = '[store]\npath = "tasks.db"\n'
_TOOLS = '[pools.tools]\nkind = "tools"\nslots = 2\n'
# One text batch after the other, so that a kill meets a task that is not done.
_EMBEDDINGS = (
    '[pools.embeddings]\nkind = "embedded"\ntask = "embeddings"\nconcurrency_cap = 1\n'
    'figures = "embeddings.json"\n'
)
_MODEL = '[pools.local]\nkind = "embedded"\nfigures = "local.json"\n'


def _figures(model: str) -> FiguresFile:
    """Made up, since a calibration takes longer than the task."""
    curve = LlmCurve(
        ttft_floor_s=0.01,
        prefill_s_per_token=0.001,
        itl_base_s=0.01,
        itl_slope_s=0.002,
        concurrency_cap=1 if model != "smollm2-135m" else 16,
        context_tokens=8192 if model == "smollm2-135m" else 500_000,
        predicted=False,
        source="made up for tests",
    )
    return FiguresFile(
        format=FORMAT,
        model=model,
        target="local",
        engine="",
        machine="",
        offering="",
        replicas=1,
        date="2026-11-23",
        source="made up for tests",
        curve=curve,
        quality="ok",
        doubts=(),
        loo_error_frac=None,
        itl_points=3,
        prefill_points=3,
        prompt_tokens=64,
        output_tokens=48,
        longest_tokens=2048,
        figures=(),
    )


class Bench:
    """A folder with a configuration and a store, where examples are run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._agent = ""

    def prepare(self, *, with_embeddings: bool, with_model: bool) -> None:
        """Write the configuration; pools that an agent does not need would take time to start."""
        sandbox = 'sandbox = "auto"\n' if _can_confine() else 'sandbox = "off"\n'
        config = _STORE + _TOOLS + sandbox
        config += _EMBEDDINGS if with_embeddings else ""
        config += _MODEL if with_model else ""
        (self._folder / "steelyard.toml").write_text(config, encoding="utf-8")
        write_figures(self._folder / "embeddings.json", _figures("all-minilm-l6-v2"))
        write_figures(self._folder / "local.json", _figures("smollm2-135m"))

    def start(self, agent: str, task_id: str, arguments: dict[str, Any]) -> "subprocess.Popen[str]":
        """Run an agent as its README command does."""
        return subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "steelyard", "run", f"{EXAMPLES / agent}"),
                *("--input", json.dumps(arguments), "--deadline", "120s", "--budget", "0.01"),
                *("--id", task_id, "--config", "steelyard.toml", "--json", "--lease", "2s"),
            ],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def result(self, running: "subprocess.Popen[str]") -> dict[str, Any]:
        """Wait for the agent's end and its result."""
        out, errors = running.communicate(timeout=_WAIT_S)
        assert running.returncode == 0, errors + out
        finished: dict[str, Any] = json.loads(out)
        assert finished["status"] == "succeeded"
        result: dict[str, Any] = finished["result"]
        return result

    def kill_after(
        self, running: "subprocess.Popen[str]", task_id: str, steps: int
    ) -> Counter[str]:
        """Kill the agent when so many steps are recorded.

        Returns:
            How often each place of its program had ended well by then.
        """
        self._wait_until(lambda: len(_ended(self.events(task_id))) >= steps, running)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        return _ended(self.events(task_id))

    def check_nothing_repeated(self, task_id: str, before: Counter[str]) -> None:
        """What had ended before the kill was not done again, and everything ended once."""
        events = self.events(task_id)
        assert any(isinstance(event, TaskResumed) for event in events)
        after = _ended(events)
        assert {place: after[place] for place in before} == dict(before)
        assert set(after.values()) == {1}
        assert len(after) > len(before)

    def events(self, task_id: str) -> Sequence[Event]:
        """The task's journal; empty before there is one."""
        path = self._folder / "tasks.db"
        if not path.exists():
            return ()
        with open_store(str(path)) as store:
            return store.journal(task_id).result()

    def _wait_until(self, reached: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
        give_up_s = time.monotonic() + _WAIT_S
        while not reached():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < give_up_s
            time.sleep(0.02)


def _can_confine() -> bool:
    try:
        asyncio.run(find_sandbox("auto", SandboxLimits()))
    except SandboxUnavailableError:
        return False
    return True


def _ended(events: Sequence[Event]) -> Counter[str]:
    """How often each step ended well, by its place in the program."""
    paths = {
        event.step.step_id: event.step.path for event in events if isinstance(event, StepPlaced)
    }
    attempts = [
        paths[event.step_id]
        for event in events
        if isinstance(event, AttemptFinished) and event.outcome == "ok"
    ]
    return Counter(attempts + [event.path for event in events if isinstance(event, StepRecorded)])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    # Tools run as another user in their sandbox, where this one is root.
    tmp_path.chmod(0o755)
    return Bench(tmp_path)
