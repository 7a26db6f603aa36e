"""Is a step lost or done twice when something breaks? 1,000 tasks for each fault.

Run as `python scripts/drill_store.py [--tasks 1000] [--faults none,gateway,worker,database]`.
For each fault there is a new database in a PostgreSQL of the drill's own (fsync on), two gateways
(`steelyard up`) before a mock upstream, and three workers. Half of the tasks are asked for through
the gateways: three numbered steps each, sent again to the other gateway after a failure, under the
same number. The other half are durable tasks of five steps, run by the workers. When a third of
one kind is done,

- `gateway`: one gateway is killed with SIGKILL, and started again;
- `worker`: one worker is killed with SIGKILL, and another one started;
- `database`: PostgreSQL is stopped at once, as by a power failure, and started again after
  AWAY_S; all connections break;
- `clocks`: nothing, but the clocks of the processes differ by 5 to 12 s from the start, which is
  more than the leases of 2 s.

Then the log is read. Lost: a step that was acknowledged to its client, or whose task succeeded,
without a result in the log. Doubled: one with two. Executions beyond one per step are work done
again, which no recovery can exclude; only `clocks` must have none. It fails where something is
lost or doubled, a task has no good end, or a client was told another answer than the log has.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "gateway")]

import upstream as mock  # noqa: E402
from tests.store.postgres_server import PostgresServer, postgres_server  # noqa: E402

from steelyard.domain.events import (  # noqa: E402
    AttemptFinished,
    Event,
    StepRecorded,
    TaskFinished,
    TaskResumed,
    TaskSubmitted,
)
from steelyard.placement.policy import CheapestFeasible  # noqa: E402
from steelyard.pools.scripted import ScriptedLlmPool  # noqa: E402
from steelyard.runtime.clock import WallClock  # noqa: E402
from steelyard.runtime.context import TaskContext  # noqa: E402
from steelyard.runtime.definitions import task  # noqa: E402
from steelyard.runtime.dispatcher import Dispatcher  # noqa: E402
from steelyard.runtime.recorder import Recorder  # noqa: E402
from steelyard.runtime.worker import Worker, WorkerSettings  # noqa: E402
from steelyard.store.event_store import EventStore, read_store  # noqa: E402
from steelyard.store.open_store import open_store  # noqa: E402
from steelyard.store.tasks import Submission  # noqa: E402

FAULTS = ("none", "gateway", "worker", "database", "clocks")
GATEWAY_STEPS, WORKER_STEPS = 3, 5
AWAY_S = 3.0
LEASE_S = 2.0
_CLIENTS = 20
_SERVICE_S = 0.02
_STEP_S = 0.05
_PATIENCE_S = 240.0
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


# ------------------------------------------------------------------------- the processes of a drill


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
        command = [sys.executable, __file__, *arguments, "--ahead", str(by_s)]
        with (self._folder / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603


def free_port() -> int:
    """A port that nobody uses now."""
    import socket  # noqa: PLC0415

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# ---------------------------------------------------------------------------------------- the tasks


class Clients:
    """Asks for numbered steps, and asks again elsewhere after a failure.

    Args:
        addresses: The gateways.
        tasks: How many tasks.
    """

    def __init__(self, addresses: list[str], tasks: int) -> None:
        self._addresses = addresses
        self._left = iter(range(tasks))
        self._drawn = random.Random(1)  # noqa: S311
        self.answers: dict[tuple[str, int], str] = {}
        self.again = 0
        self.statuses: Counter[int] = Counter()
        self.done = 0

    async def run(self) -> None:
        """Ask for all."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30.0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            await asyncio.gather(*(self._client(http) for _ in range(_CLIENTS)))

    async def _client(self, http: aiohttp.ClientSession) -> None:
        for number in self._left:
            for step in range(GATEWAY_STEPS):
                await self._ask(http, f"asked-{number}", step)
            self.done += 1

    async def _ask(self, http: aiohttp.ClientSession, task_id: str, step: int) -> None:
        text = f"step {step} of {task_id}"
        body = {"model": "mock", "messages": [{"role": "user", "content": text}]}
        headers = {
            "Steelyard-Task": task_id,
            "Steelyard-Step": "ask",
            "Idempotency-Key": f"{task_id}/{step}",
        }
        at = self._drawn.randrange(len(self._addresses))
        while True:
            url = f"{self._addresses[at]}/v1/chat/completions"
            wait_s = 0.1
            try:
                async with http.post(url, json=body, headers=headers) as answer:
                    told = await answer.json()
                    self.statuses[answer.status] += 1
                    if answer.status == 200:
                        content = told["choices"][0]["message"]["content"]
                        self.answers[(task_id, step)] = content
                        return
                    wait_s = float(answer.headers.get("Retry-After", wait_s))
            except (aiohttp.ClientError, TimeoutError):
                self.statuses[0] += 1
            self.again += 1
            at = (at + 1) % len(self._addresses)
            await asyncio.sleep(wait_s)


async def submit(store: EventStore, tasks: int) -> None:
    """Put durable tasks into the store."""
    clock = WallClock()
    waiting = [
        store.submit(
            Submission(
                event=TaskSubmitted(
                    t_s=clock.now_s(),
                    task_id=f"run-{number}",
                    agent="noting",
                    arguments={"name": f"run-{number}"},
                )
            )
        )
        for number in range(tasks)
    ]
    await asyncio.gather(*map(asyncio.wrap_future, waiting))


async def ended(store: EventStore, tasks: int) -> int:
    """How many durable tasks have succeeded?"""
    rows = await asyncio.wrap_future(store.tasks(state="succeeded", limit=2 * tasks))
    return len(rows)


# ---------------------------------------------------------------------------------------- the drill


class Outcome(NamedTuple):
    """What a drill found.

    Attributes:
        lost: Steps without a result.
        doubled: Steps with more than one.
        wrong: Answers that clients got and the log does not have.
        again: Executions beyond one per step.
        takeovers: Tasks that changed hands.
        seconds: How long it took.
        told: What else is worth a look.
    """

    lost: int
    doubled: int
    wrong: int
    again: int
    takeovers: int
    seconds: float
    told: str


def judge(events: list[Event], clients: Clients, tasks: int, executions: Counter[str]) -> Outcome:
    """Read the log against what clients were told, and what was performed."""
    results: Counter[tuple[str, int]] = Counter()
    recorded: dict[tuple[str, int], str] = {}
    ends: Counter[str] = Counter()
    for event in events:
        if isinstance(event, AttemptFinished) and event.outcome == "ok":
            results[(event.task_id, event.step_id)] += 1
            recorded[(event.task_id, event.step_id)] = json.dumps(event.result)
        elif isinstance(event, StepRecorded) and not event.error_code:
            results[(event.task_id, event.step_id)] += 1
        elif isinstance(event, TaskFinished) and event.status == "succeeded":
            ends[event.task_id] += 1
    wanted = [(f"asked-{n}", step) for n in range(tasks) for step in range(GATEWAY_STEPS)]
    wanted += [(f"run-{n}", step) for n in range(tasks) for step in range(WORKER_STEPS)]
    lost = sum(results[one] == 0 for one in wanted)
    lost += sum(ends[f"run-{n}"] == 0 for n in range(tasks))
    doubled = sum(results[one] > 1 for one in wanted)
    doubled += sum(count > 1 for count in ends.values())
    wrong = sum(f'"{text}"' not in recorded.get(key, "") for key, text in clients.answers.items())
    beyond = NumberedAnswers.executions - tasks * GATEWAY_STEPS
    beyond += sum(executions.values()) - tasks * WORKER_STEPS
    takeovers = sum(isinstance(event, TaskResumed) for event in events)
    told = f"asked again {clients.again}, statuses {dict(sorted(clients.statuses.items()))}"
    return Outcome(lost, doubled, wrong, beyond, takeovers, 0.0, told)


def strike(fault: str, processes: Processes, server: PostgresServer) -> None:
    """Let the fault happen."""
    if fault == "gateway":
        processes.gateways[0].kill()
        processes.gateways[0].wait()
        processes.start_gateway(0)
    elif fault == "worker":
        processes.workers[0].kill()
        processes.workers[0].wait()
        processes.start_worker()
    elif fault == "database":
        server.stop()
        time.sleep(AWAY_S)
        server.start()


async def drill(fault: str, tasks: int, folder: Path, server: PostgresServer) -> Outcome:
    """Run all tasks, with the fault when a third of them is done."""
    NumberedAnswers.executions = 0
    loop, port = asyncio.get_running_loop(), free_port()
    upstream = await loop.create_server(lambda: NumberedAnswers(loop, 1, 0.0), "127.0.0.1", port)
    store_url = server.new_database()
    offsets_s = [5.0, -5.0, 7.0, -5.0, 0.0] if fault == "clocks" else []
    processes = Processes(folder, store_url, port, offsets_s)
    # The first to open the database makes its tables.
    with ExitStack() as stack:
        store = stack.enter_context(open_store(store_url))
        stack.callback(processes.kill_all)
        for number in range(2):
            processes.start_gateway(number)
        for _ in range(3):
            processes.start_worker()
        await ready(processes.addresses)
        await submit(store, tasks)
        clients = Clients(processes.addresses, tasks)
        started_s = time.monotonic()
        asking = asyncio.create_task(clients.run())
        async with asyncio.timeout(_PATIENCE_S):
            while max(clients.done, await ended(store, tasks)) < tasks // 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(strike, fault, processes, server)
            await asking
            while await ended(store, tasks) < tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        took_s = time.monotonic() - started_s
        events = list(read_store(store))
        upstream.close()
        return judge(events, clients, tasks, processes.executions())._replace(seconds=took_s)


async def ready(addresses: list[str]) -> None:
    """Wait until all gateways serve."""
    gives_up_s = time.monotonic() + 90.0
    async with aiohttp.ClientSession() as http:
        for address in addresses:
            while True:
                try:
                    async with http.get(f"{address}/readyz") as answer:
                        if answer.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                if time.monotonic() > gives_up_s:
                    raise RuntimeError(f"{address} does not serve")
                await asyncio.sleep(0.1)


def options() -> argparse.Namespace:
    """What is asked for?"""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000, help="per fault, half of each kind")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--gateway", default="", help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--notes", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ahead", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Drill and tell; ends with status 1 where something was lost or doubled."""
    given = options()
    if given.gateway:
        run_gateway(given.gateway, given.ahead)
        return
    if given.worker:
        uvloop.run(run_worker(given.worker, given.notes, given.ahead))
        return
    half, is_good = given.tasks // 2, True
    print(f"{half} tasks of {GATEWAY_STEPS} steps through two gateways, {half} of {WORKER_STEPS}")
    print(f"in three workers (lease {LEASE_S:g} s), per fault; {os.cpu_count()} cores", flush=True)
    run: Callable[..., Any] = uvloop.run
    for fault in given.faults.split(","):
        with tempfile.TemporaryDirectory() as folder, postgres_server(fsync=True) as server:
            found = run(drill(fault, half, Path(folder), server))
        bad = found.lost or found.doubled or found.wrong or (fault == "clocks" and found.again)
        is_good = is_good and not bad
        print(
            f"{fault:9} lost {found.lost}, doubled {found.doubled}, wrong answers {found.wrong}; "
            f"done again {found.again}, taken over {found.takeovers}, {found.seconds:.1f} s; "
            f"{found.told}",
            flush=True,
        )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
