"""Is a step lost or done twice when something breaks? 1,000 tasks for each fault.

Run as `python scripts/drill_store [--tasks 1000] [--faults none,gateway,worker,database]`.
For each fault there is a new database in a PostgreSQL of the drill's own (fsync on), two gateways
(`steelyard up`) before a mock upstream, and three workers. Half of the tasks are asked for through
the gateways: three numbered steps each, sent again to the other gateway after a failure, under the
same number. The other half are durable tasks of five steps, run by the workers. When a third of
one kind is done,

- `gateway`: one gateway is killed with SIGKILL, and started again;
- `worker`: one worker is killed with SIGKILL, and another one started;
- `database`: PostgreSQL is stopped at once, as by a power failure, and started again after
  AWAY_S; all connections break;
- `failover`: PostgreSQL has a synchronous standby; the primary is killed with SIGKILL and stays
  away, and the standby is promoted 2 s later. All processes know both addresses;
- `failover-async` (only where it is named): the same with a standby that is not waited for, and
  that nothing has reached in the last second. What was acknowledged in that second is lost;
- `clocks`: nothing, but the clocks of the processes differ by 5 to 12 s from the start, which is
  more than the leases of 2 s.

Then the log is read. Lost: a step that was acknowledged to its client, or whose task succeeded,
without a result in the log. Doubled: one with two. Executions beyond one per step are work done
again, which no recovery can exclude; only `clocks` must have none. It fails where something is
lost or doubled, a task has no good end, or a client was told another answer than the log has.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import uvloop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT), str(ROOT / "benchmarks" / "gateway")]

from tests.store.postgres_server import PostgresServer, postgres_server  # noqa: E402

from drill_store.clients import GATEWAY_STEPS, Clients  # noqa: E402
from drill_store.pair import PostgresPair, free_port, postgres_pair  # noqa: E402
from drill_store.processes import (  # noqa: E402
    LEASE_S,
    WORKER_STEPS,
    NumberedAnswers,
    Processes,
    run_gateway,
    run_worker,
)
from steelyard.domain.events import (  # noqa: E402
    AttemptFinished,
    Event,
    StepRecorded,
    TaskFinished,
    TaskResumed,
    TaskSubmitted,
)
from steelyard.runtime.clock import WallClock  # noqa: E402
from steelyard.store.event_store import EventStore, read_store  # noqa: E402
from steelyard.store.open_store import open_store  # noqa: E402
from steelyard.store.tasks import Submission  # noqa: E402

FAULTS = ("none", "gateway", "worker", "database", "clocks", "failover")
MAY_LOSE = "failover-async"
AWAY_S = 3.0
_PATIENCE_S = 240.0
# How long the standby waits before it is promoted: whoever watches has to be sure.
_SURE_S = 2.0
# With a standby that may lag, so long before the primary's end nothing reaches it.
_LAG_S = 1.0


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
        pause: When clients were without answers, in seconds from the fault.
    """

    lost: int
    doubled: int
    wrong: int
    again: int
    takeovers: int
    seconds: float
    told: str
    pause: str = ""


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


def strike(fault: str, processes: Processes, server: PostgresServer | PostgresPair) -> None:
    """Let the fault happen."""
    if isinstance(server, PostgresPair):
        if fault == MAY_LOSE:
            server.hold_back()
            time.sleep(_LAG_S)
        server.kill_primary()
        time.sleep(_SURE_S)
        server.promote()
        return
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


async def drill(
    fault: str, tasks: int, folder: Path, server: PostgresServer | PostgresPair
) -> Outcome:
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
            struck_s = time.monotonic()
            await asyncio.to_thread(strike, fault, processes, server)
            mended_s = time.monotonic()
            await asking
            while await ended(store, tasks) < tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        took_s = time.monotonic() - started_s
        events = list(read_store(store))
        upstream.close()
        found = judge(events, clients, tasks, processes.executions())
        return found._replace(seconds=took_s, pause=pause(clients, struck_s, mended_s))


def pause(clients: Clients, struck_s: float, mended_s: float) -> str:
    """For how long were clients without answers, and when did they get one again?"""
    good = sorted(t_s for t_s, status in clients.seen if status == 200)
    gaps = [(later - before, before) for before, later in itertools.pairwise(good)]
    longest_s, since_s = max(gaps, default=(0.0, struck_s))
    refused = [t_s for t_s, status in clients.seen if status == 503]
    told = f"longest pause of answers {longest_s:.1f} s, from {since_s - struck_s:+.1f} s"
    told += f" to {since_s + longest_s - struck_s:+.1f} s; mended at {mended_s - struck_s:+.1f} s"
    if refused:
        told += f"; 503 from {min(refused) - struck_s:+.1f} to {max(refused) - struck_s:+.1f} s"
    return told


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


def database(fault: str) -> AbstractContextManager[PostgresServer | PostgresPair]:
    """The PostgreSQL of a fault; commits wait for the disk."""
    if fault.startswith("failover"):
        return postgres_pair(is_synchronous=fault != MAY_LOSE)
    return postgres_server(fsync=True)


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
        with tempfile.TemporaryDirectory() as folder, database(fault) as server:
            found = run(drill(fault, half, Path(folder), server))
        bad = found.lost or found.doubled or found.wrong or (fault == "clocks" and found.again)
        is_good = is_good and (fault == MAY_LOSE or not bad)
        print(
            f"{fault:9} lost {found.lost}, doubled {found.doubled}, wrong answers {found.wrong}; "
            f"done again {found.again}, taken over {found.takeovers}, {found.seconds:.1f} s; "
            f"{found.told}; {found.pause}",
            flush=True,
        )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
