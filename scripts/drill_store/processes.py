"""The processes of a drill: an upstream that numbers its answers, gateways, and workers."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import upstream as mock

from drill_store.pair import free_port
from steelyard.placement.policy import CheapestFeasible
from steelyard.pools.scripted import ScriptedLlmPool
from steelyard.runtime.clock import WallClock
from steelyard.runtime.context import TaskContext
from steelyard.runtime.definitions import task
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.worker import Worker, WorkerSettings
from steelyard.store.open_store import open_store

WORKER_STEPS = 5
LEASE_S = 2.0
_SERVICE_S = 0.02
_STEP_S = 0.05
_CONFIG = """
[gateway]
port = {port}
[store]
url = "{store}"
[pools.lab]
kind = "endpoint"
base_urls = ["http://127.0.0.1:{upstream}/v1"]
models = ["mock"]
usd_per_hour = 1.0
curve = {{ concurrency_cap = 64 }}
"""


class NumberedAnswers(mock.Upstream):
    """Numbers its answers, so that each execution can be told from the others."""

    executions = 0

    def on_message_complete(self) -> None:
        """Stream the number, a little later."""
        if not self._body:
            super().on_message_complete()
            return
        self._body = []
        NumberedAnswers.executions += 1
        text = f"answer {NumberedAnswers.executions}"
        self._loop.call_later(_SERVICE_S, self._tell, mock.piece({"content": text}))

    def _tell(self, piece: bytes) -> None:
        if self._transport is not None:
            self._transport.write(mock.STREAM_HEAD + piece + mock.LAST + mock.USAGE + mock.END)


def run_gateway(config: str, by_s: float) -> None:
    """Be a gateway whose clock is `by_s` ahead."""
    now = time.time
    time.time = lambda: now() + by_s
    sys.argv = ["steelyard", "up", "--config", config]
    from steelyard.cli.app import main as command  # noqa: PLC0415

    command()


async def run_worker(store: str, notes: Path, by_s: float) -> None:
    """Be a worker whose clock is `by_s` ahead, until killed; notes every execution of a step."""
    now = time.time
    time.time = lambda: now() + by_s

    async def noted(key: str) -> str:
        with notes.open("a", encoding="ascii") as file:
            file.write(key + "\n")
        await asyncio.sleep(_STEP_S)
        return key

    @task(name="noting")
    async def noting(ctx: TaskContext, name: str) -> None:
        for number in range(WORKER_STEPS):
            await ctx.step(partial(noted, f"{name}/{number}"))

    with open_store(store) as opened:
        dispatcher = Dispatcher(Recorder(WallClock(), opened), CheapestFeasible(), {}, {})
        settings = WorkerSettings(slots=10, lease_s=LEASE_S, look_s=0.1)
        worker = Worker(opened, dispatcher, (ScriptedLlmPool(), "none"), (noting,), settings)
        async with worker.working():
            print("ready", flush=True)
            await asyncio.Event().wait()


class Processes:
    """Gateways and workers on one database.

    Args:
        folder: For their files.
        store: The database.
        upstream: Port of the upstream.
        offsets_s: How far the clock of each next process is ahead.
    """

    def __init__(self, folder: Path, store: str, upstream: int, offsets_s: list[float]) -> None:
        self._folder, self._store, self._upstream = folder, store, upstream
        self._offsets_s = offsets_s
        self._ports: list[int] = []
        self.gateways: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def addresses(self) -> list[str]:
        """Where the gateways are."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def start_gateway(self, number: int) -> None:
        """Start a gateway, or start it again."""
        if number == len(self._ports):
            self._ports.append(free_port())
        config = self._folder / f"gateway{number}.toml"
        config.write_text(
            _CONFIG.format(port=self._ports[number], store=self._store, upstream=self._upstream)
        )
        started = self._started(["--gateway", str(config)], f"gateway{number}")
        self.gateways[number:] = [started]

    def start_worker(self) -> None:
        """Start one more worker."""
        name = f"worker{len(self.workers)}"
        notes = self._folder / f"{name}.notes"
        self.workers.append(self._started(["--worker", self._store, "--notes", str(notes)], name))

    def executions(self) -> Counter[str]:
        """How often was each step of a durable task performed?"""
        found: Counter[str] = Counter()
        for notes in self._folder.glob("*.notes"):
            found.update(notes.read_text(encoding="ascii").split())
        return found

    def kill_all(self) -> None:
        """End all of them."""
        for process in (*self.gateways, *self.workers):
            process.kill()
            process.wait()

    def _started(self, arguments: list[str], name: str) -> "subprocess.Popen[bytes]":
        by_s = self._offsets_s.pop(0) if self._offsets_s else 0.0
        command = [sys.executable, str(Path(__file__).parent), *arguments, "--ahead", str(by_s)]
        with (self._folder / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603
