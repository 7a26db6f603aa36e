"""What the pictures are of: the demo's store, a gateway over it, and agents that ask it.

The embedded model and the tools are real. Beside them stand two servers that only pretend to be
something, so that the page of the fleet has more than one kind of hardware: `l4` answers every
request with the same words, and nobody listens where `vendor` is said to be.
"""

import functools
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEELYARD = ROOT / ".venv" / "bin" / "steelyard"
FRAMEWORKS = ROOT / ".venv-frameworks"
MODEL = "smollm2-135m"
# mcp_server is no program of its own; openai_agents is named by its key, and there are none here.
_NO_EXAMPLES = frozenset({"mcp_server", "openai_agents"})
CODING_TASK = "repair-1"
_CONFIG = """
[gateway]
port = 0
[store]
path = "events.db"
[dashboard]
plan = "plan.json"
[pools.local-llm]
kind = "embedded"
precision = "native"
[pools.local-tools]
kind = "tools"
cores = 1.0
[pools.l4]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{port}/v1", "http://127.0.0.1:{port}/v1"]
models = ["smollm2-135m"]
offering = "gcp/g2-standard-4"
curve = {{ ttft_floor_s = 0.1, itl_base_s = 0.005, concurrency_cap = 8, context_tokens = 8192 }}
"""
_VENDOR = """
[pools.vendor]
kind = "endpoint"
base_urls = ["http://127.0.0.1:9/v1"]
models = ["smollm2-135m"]
provider = "example"
region = "eu"
token_price = { input_usd_per_million = 0.01, output_usd_per_million = 0.02 }
curve = { ttft_floor_s = 0.05, itl_base_s = 0.002, concurrency_cap = 64, context_tokens = 8192 }
"""
_KEYED = """
[gateway]
port = 0
api_keys_file = "keys"
[store]
path = "keyed.db"
"""
_TICKETS = ("My parcel is late.", "The invoice is wrong.", "How do I reset my password?")
# Seconds for the whole task; the last cannot be kept.
_DEADLINES_S = (60.0, 20.0, 2.0)


class _StandIn(BaseHTTPRequestHandler):
    """Answers every chat with the same words, after a while."""

    def do_GET(self) -> None:
        """Tell the models."""
        self._send({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        """Tell the words."""
        asked = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.4)
        tokens = len(asked) // 4
        self._send(
            {
                "id": "stand-in",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": MODEL,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "This is for the desk."},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": tokens,
                    "completion_tokens": 8,
                    "total_tokens": tokens + 8,
                    "prompt_tokens_details": {"cached_tokens": tokens // 2},
                },
            }
        )

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
        del format, args

    def _send(self, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program of ours to its end; what it printed."""
    print("+", " ".join(command), file=sys.stderr)
    return subprocess.run(  # noqa: S603 - our own programs
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    ).stdout


@contextmanager
def gateway(demo: Path, folder: Path) -> Iterator[str]:
    """`steelyard up` over a copy of the demo's store, with a durable task of the coding agent.

    Args:
        demo: What `steelyard demo` wrote.
        folder: Where the copy lies.

    Yields:
        Its address, without a path.
    """
    # Folds what lies beside the file into it, so that one file is the whole log.
    run(sys.executable, "-c", _CHECKPOINT, str(demo / "events.db"), cwd=folder)
    for name in ("events.db", "plan.json"):
        shutil.copy(demo / name, folder / name)
    agent = f"{ROOT / 'examples' / 'coding_agent.py'}:repair"
    durable = (agent, "--id", CODING_TASK, "--deadline", "300s", "--budget", "0.01")
    run(str(STEELYARD), "run", *durable, "--store", "events.db", cwd=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), _StandIn) as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        config = folder / "steelyard.toml"
        text = _CONFIG.format(port=stand_in.server_port) + _VENDOR
        config.write_text(text, encoding="utf-8")
        with _up(config) as address:
            yield address
        stand_in.shutdown()


@contextmanager
def keyed_gateway(folder: Path) -> Iterator[str]:
    """`steelyard up` that wants a key, so that its dashboard asks for one; its only pool is down.

    Args:
        folder: Where its files lie.

    Yields:
        Its address, without a path.
    """
    (folder / "keys").write_text(f"sk-{secrets.token_hex(16)}\n", encoding="ascii")
    config = folder / "keyed.toml"
    config.write_text(_KEYED + _VENDOR, encoding="utf-8")
    with _up(config) as address:
        yield address


@contextmanager
def _up(config: Path) -> Iterator[str]:
    command = [str(STEELYARD), "up", "--config", str(config)]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()
            process.wait(60.0)


_CHECKPOINT = (
    "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')"
)


def _address(process: "subprocess.Popen[str]") -> str:
    for line in process.stderr or ():
        sys.stderr.write(line)
        found = re.search(r"(http://\S+)/v1", line)
        if "serving" in line and found:
            # What it says later must not fill the pipe.
            threading.Thread(target=process.communicate, daemon=True).start()
            return found.group(1)
    raise RuntimeError("the gateway ended before it served; see above")


def support_desk(address: str, number: int) -> list[str]:
    """Agents of two steps, one after the other; some of them are in a hurry.

    Args:
        address: The gateway's.
        number: Of the round; part of the tasks' names.

    Returns:
        The tasks' ids.
    """
    names: list[str] = []
    for ticket, deadline_s in zip(_TICKETS, _DEADLINES_S, strict=True):
        task = f"ticket-{number:02d}-{ticket.rstrip('.?').split()[-1]}"
        names.append(task)
        chat = [{"role": "user", "content": f"Which department handles this? {ticket}"}]
        said = _ask(address, task, "classify", chat, deadline_s)
        chat += [{"role": "assistant", "content": said or "the desk"}]
        chat += [{"role": "user", "content": "Write a short, friendly reply to the customer."}]
        _ask(address, task, "reply", chat, deadline_s)
    return names


def _ask(
    address: str, task: str, step: str, chat: list[dict[str, str]], deadline_s: float
) -> str | None:
    """One step; None where it was refused, or the gateway is gone."""
    asked = urllib.request.Request(  # noqa: S310 - this machine
        f"{address}/v1/chat/completions",
        json.dumps({"model": MODEL, "messages": chat, "max_tokens": 60}).encode(),
        {
            "content-type": "application/json",
            "steelyard-task": task,
            "steelyard-agent": "support",
            "steelyard-step": step,
            "steelyard-deadline": str(deadline_s),
            "steelyard-budget-usd": "0.001",
        },
    )
    try:
        with urllib.request.urlopen(asked, timeout=120.0) as answer:  # noqa: S310 - as above
            said: str = json.load(answer)["choices"][0]["message"]["content"]
            return said
    except OSError:
        return None


def framework_examples(address: str, folder: Path) -> dict[str, str]:
    """Run the agents of `examples/frameworks`, where `make test-frameworks` has installed them.

    Returns:
        Their tasks by program.
    """
    tasks: dict[str, str] = {}
    if not (FRAMEWORKS / ".installed").is_file():
        return tasks
    environment = {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": "none-needed-on-loopback"}
    for program in sorted((ROOT / "examples" / "frameworks").glob("*.py")):
        if program.stem not in _NO_EXAMPLES:
            said = run(str(FRAMEWORKS / "bin" / "python"), str(program), cwd=folder, **environment)
            found = re.search(r"^task: (\S+)$", said, re.MULTILINE)
            if found:
                tasks[program.stem] = found.group(1)
    return tasks


def first_listed(address: str, agent: str) -> str:
    """The id of an agent's newest task, as the dashboard lists it."""
    with urllib.request.urlopen(f"{address}/tasks?agent={agent}") as answer:  # noqa: S310 - as above
        found = re.search(r'href="/task\?id=([^"]+)"', answer.read().decode())
    return urllib.parse.unquote(found.group(1)) if found else ""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder's files over HTTP: search needs a server."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        del format, args
