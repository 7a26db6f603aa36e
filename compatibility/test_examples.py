"""examples/frameworks, run as their users run them: each run is one task with its steps."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "frameworks"
NO_NETWORK = Path(__file__).parent / "no_network"
# Agent and names of the steps, as the log has them.
RUNS = {
    "openai_sdk": ("openai-sdk", ["choose", "answer"]),
    "langgraph_agent": ("langgraph", ["choose", "answer"]),
    "pydantic_ai_agent": ("pydantic-ai", ["sort", "write"]),
    "smolagents_agent": ("smolagents", ["chat", "chat"]),
    "mcp_agent": ("mcp", ["response", "response"]),
    "openai_agents": ("concierge", ["response", "response"]),
}
# Those that name no task: their key does.
BY_KEY = {"openai_agents"}
LIMITS = ("--deadline", "120s", "--budget", "0.01")
_PATIENCE_S = 20.0


def _run(program: list[str], tmp_path: Path, key: str, base_url: str) -> str:
    """What a program prints that must reach nothing but this machine."""
    tried = tmp_path / "tried"
    tried.touch()
    environment = {
        **{name: value for name, value in os.environ.items() if "PROXY" not in name.upper()},
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": key,
        "PYTHONPATH": str(NO_NETWORK),
        "TRIED_HOSTS": str(tried),
    }
    ended = subprocess.run(  # noqa: S603 - our own examples
        [sys.executable, *program],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert tried.read_text(encoding="utf-8") == "", ended.stderr
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="session")
def see(keyed: Any) -> Callable[[str], httpx.Response]:
    """Reads pages and the interface of tasks with a key that may."""
    key = keyed.key("looks", "--control")
    root = keyed.base_url.removesuffix("/v1")
    client = httpx.Client(base_url=root, headers={"Authorization": f"Bearer {key}"})
    return client.get


@pytest.fixture(scope="session")
def plain_key(keyed: Any) -> str:
    return keyed.key("plain")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_one_task_with_its_steps_deadline_and_budget(
    keyed: Any, plain_key: str, see: Any, tmp_path: Path, name: str
) -> None:
    agent, steps = RUNS[name]
    key = plain_key
    if name in BY_KEY:
        key = keyed.key("run-7", "--task", "run-7", "--agent", agent, *LIMITS)
    told = _run([str(EXAMPLES / f"{name}.py")], tmp_path, key, keyed.base_url)
    print(told)
    found = re.search(r"^task: (\S+)$", told, re.MULTILINE)
    assert (found is None) == (name in BY_KEY)
    task_id = found.group(1) if found else "run-7"
    _check_task(see, task_id, agent, steps)
    _check_pages(see, task_id, agent, len(steps))


def _check_task(see: Any, task_id: str, agent: str, steps: list[str]) -> None:
    """Its steps as /api/tasks and /api/steps tell them."""
    task = _when(see, f"/api/tasks/{task_id}", lambda one: len(one["steps"]) == len(steps))
    assert [one["name"] for one in task["steps"]] == steps
    assert task["task"]["agent"] == agent
    assert task["budget_usd"] == 0.01
    # A key's deadline began when the key was made.
    assert 60.0 < task["deadline_s"] - task["task"]["submitted_s"] <= 120.01
    costs: list[float] = []
    for step in task["steps"]:
        shown = _when(
            see,
            f"/api/steps/{task_id}/{step['step_id']}",
            lambda one: all(attempt["measured"] for attempt in one["attempts"]),
        )
        (attempt,) = shown["attempts"]
        assert (attempt["answer"]["pool"], attempt["measured"]["outcome"]) == ("local", "ok")
        # Placed by what is left of the task's time.
        assert attempt["answer"]["slack_s"] < 120.0
        costs.append(attempt["measured"]["cost_usd"])
    assert see(f"/api/steps/{task_id}/{len(steps)}").status_code == 404
    assert 0.0 < sum(costs) < 0.01
    assert see(f"/api/tasks/{task_id}").json()["cost_usd"] == pytest.approx(sum(costs))


def _check_pages(see: Any, task_id: str, agent: str, steps: int) -> None:
    """The dashboard: one task of that agent, and its steps on its page."""
    listed = see(f"/tasks?agent={agent}").text
    assert re.findall(r'href="/task\?id=([^"]+)"', listed) == [task_id]
    page = see(f"/task?id={task_id}").text
    assert "budget" in page
    assert "$0.0100" in page
    assert "time left" in page
    shown = re.findall(r">\s*(\d+) · \w+", page)
    assert sorted(set(shown), key=int) == [str(number) for number in range(steps)]
    # A request without a name would be a task of its own.
    assert "/task?id=" not in see("/tasks?agent=unnamed").text


def _when(see: Any, path: str, ready: Callable[[Any], bool]) -> Any:
    """The answer as soon as it is ready: the log is written a moment after the client's answer."""
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        answer = see(path)
        if answer.status_code == 200 and ready(answer.json()):
            return answer.json()
        assert time.monotonic() < until_s, answer.text
        time.sleep(0.05)


def test_what_reaches_beyond_this_machine_is_noticed(tmp_path: Path) -> None:
    program = "import socket\ntry: socket.getaddrinfo('example.com', 443)\nexcept OSError: pass"
    with pytest.raises(AssertionError, match=r"example\.com"):
        _run(["-c", program], tmp_path, "", "http://127.0.0.1:1/v1")


def test_every_example_is_run_is_short_and_stands_in_the_documents() -> None:
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    programs = {path.stem for path in EXAMPLES.glob("*.py")}
    assert programs - {"mcp_server"} == set(RUNS)
    for program in programs:
        assert f"../examples/frameworks/{program}.py" in page
        assert len((EXAMPLES / f"{program}.py").read_text("utf-8").splitlines()) < 80
