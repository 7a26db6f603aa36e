import json
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

AGENT = """
{figures}
[[agents]]
name = "a"
tasks_per_hour = 3600
[[agents.steps]]
name = "answer"
kind = "llm"
model = "tiny"
prompt_tokens = 50
output_tokens = 8
"""


class _Endpoint(BaseHTTPRequestHandler):
    """An OpenAI-compatible server whose tokens take about a millisecond each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("application/json", json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt_tokens = len(asked["prompt"].split())
        time.sleep(0.002 + 2e-5 * prompt_tokens)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for _ in range(asked["max_tokens"]):
            time.sleep(0.001)
            self._event({"choices": [{"index": 0, "text": "a ", "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": asked["max_tokens"]}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def _answer(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def endpoint() -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_endpoint_is_measured_and_planned_with(run: Run, endpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    measured = ("--short", "--offering", "aws/m9g.xlarge", "--out", str(out))
    ran = run("measure", endpoint, *measured, "--json")
    assert ran.code == 0, ran.err
    assert "prefill of 64 tokens" in ran.err
    found = json.loads(ran.out)
    assert json.loads(out.read_text(encoding="utf-8")) == found
    assert (found["model"], found["offering"]) == ("tiny", "aws/us-east-1/m9g.xlarge/on_demand")
    assert found["curve"]["prefill_s_per_token"] > 0.0

    config = tmp_path / "plan.toml"
    config.write_text(AGENT.format(figures=""), encoding="utf-8")
    missing = run("plan", "--config", str(config))
    assert missing.code == 2
    assert "'tiny'" in missing.err
    plan = run("plan", "--config", str(config), "--figures", str(out), "--json")
    assert plan.code == 0, plan.err
    bought = [m["offering"] for m in json.loads(plan.out)["machines"]]
    assert bought == ["aws/us-east-1/m9g.xlarge/on_demand"]

    config.write_text(AGENT.format(figures='figures = ["figures.json"]'), encoding="utf-8")
    assert run("plan", "--config", str(config), "--json").out == plan.out


def test_figures_without_an_offering_cannot_be_priced(
    run: Run, endpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "figures.json"
    ran = run("measure", endpoint, "--short", "--out", str(out), "--as-model", "qwen2.5-0.5b")
    assert ran.code == 0, ran.err
    assert "gap between tokens with 4 streams" in ran.out
    config = tmp_path / "plan.toml"
    config.write_text(AGENT.format(figures=""), encoding="utf-8")
    ran = run("plan", "--config", str(config), "--figures", str(out))
    assert ran.code == 2
    assert "names no offering" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "neither `local` nor an address"),
        (("http://127.0.0.1:1/v1",), "127.0.0.1:1"),
        (("local", "--prompts", "1,x"), "--prompts"),
        (("local", "--offering", "aws/nope"), "not in the catalogue"),
        (("http://127.0.0.1:1/v1", "--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
    ],
)
def test_a_target_that_cannot_be_measured_is_one_line(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    ran = run("measure", *arguments, "--out", str(tmp_path / "f.json"))
    assert ran.code == 2
    assert told in ran.err
    assert not (tmp_path / "f.json").exists()


def test_too_few_loads_are_refused_and_nothing_is_written(
    run: Run, endpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "f.json"
    ran = run("measure", endpoint, "--short", "--loads", "1,2", "--out", str(out))
    assert ran.code == 2
    assert "at least 3 are needed" in ran.err
    assert not out.exists()
