"""A real gateway, as `steelyard up` starts it, in front of a server on the OpenAI wire."""

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MODEL = "smollm2-135m"
_ANSWER = "A balance with unequal arms."


class _Upstream(BaseHTTPRequestHandler):
    """Answers every chat with the same words."""

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": _ANSWER}
        usage = {"prompt_tokens": len(asked) // 4, "completion_tokens": 7, "total_tokens": 0}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL}
        self._send({**head, "choices": [choice], "usage": usage})

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def _send(self, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Gateway(NamedTuple):
    """A gateway that runs.

    Attributes:
        base_url: What clients are given, up to `/v1`.
        folder: Where it runs; its store is `steelyard.db` there.
        said: Its lines on standard error, up to now.
    """

    base_url: str
    folder: Path
    said: list[str]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Upstream) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{upstream.server_port}/v1"
        (folder / "steelyard.toml").write_text(
            f'[gateway]\nport = 0\nrequest_log = true\n[pools.gpu]\nkind = "endpoint"\n'
            f'base_urls = ["{address}"]\nmodels = ["{MODEL}"]\nusd_per_hour = 0.5\n',
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "steelyard", "up"]
        with subprocess.Popen(  # noqa: S603 - our own program
            command, cwd=folder, stderr=subprocess.PIPE, text=True
        ) as process:
            said: list[str] = []
            yield Gateway(_address(process, said), folder, said)
            process.terminate()
            process.wait(30.0)
        upstream.shutdown()


def _address(process: "subprocess.Popen[str]", said: list[str]) -> str:
    """Where it listens; what it says after that is gathered in the background."""
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if "serving" in line:
            threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
            return line.split(" at ")[1].split()[0]
    raise AssertionError("".join(said))
