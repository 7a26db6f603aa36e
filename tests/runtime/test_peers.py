"""Several worker processes on one store: one dies, one stalls, and the others go on."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tests.store.conftest import Open

from steelyard.domain.events import StepRecorded, TaskFinished, TaskResumed, TaskSubmitted
from steelyard.store.event_store import EventStore, read_store
from steelyard.store.tasks import Submission

PEER = Path(__file__).with_name("peer.py")
TASKS = 40


@contextmanager
def _peers(where: str, count: int) -> Generator[dict[str, subprocess.Popen[str]], None, None]:
    """Worker processes by the names of their workers."""
    started = [
        subprocess.Popen([sys.executable, PEER, where], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(count)
    ]
    try:
        peers: dict[str, subprocess.Popen[str]] = {}
        for peer in started:
            assert peer.stdout is not None
            peers[peer.stdout.readline().strip()] = peer
        yield peers
    finally:
        for peer in started:
            peer.kill()
            peer.communicate()


def _submit_all(store: EventStore) -> None:
    for number in range(TASKS):
        event = TaskSubmitted(t_s=time.time(), task_id=f"t{number}", agent="steady")
        store.submit(Submission(event=event))
    store.durable().result()


def _wait_until(condition: Callable[[], bool]) -> None:
    gives_up_s = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < gives_up_s
        time.sleep(0.05)


def _check_all_ended_once(store: EventStore) -> None:
    events = list(read_store(store))
    ends = [event for event in events if isinstance(event, TaskFinished)]
    assert Counter(end.task_id for end in ends) == {f"t{number}": 1 for number in range(TASKS)}
    assert {(end.status, end.result) for end in ends} == {("succeeded", 285)}
    steps = Counter((one.task_id, one.path) for one in events if isinstance(one, StepRecorded))
    assert len(steps) == 10 * TASKS
    assert set(steps.values()) == {1}


def _holder(store: EventStore) -> str:
    """A worker that holds tasks in the middle of their steps; waits for one."""
    found: list[str] = []

    def look() -> bool:
        steps = Counter(
            event.task_id for event in read_store(store) if isinstance(event, StepRecorded)
        )
        rows = store.tasks(state="running").result()
        found[:] = [row.worker for row in rows if 0 < steps[row.task_id] < 10]
        return bool(found)

    _wait_until(look)
    return found[0]


def _all_ended(store: EventStore) -> bool:
    return all(row.state == "succeeded" for row in store.tasks(limit=1000).result())


def test_tasks_of_a_killed_worker_are_ended_by_its_peers(where: str, open_one: Open) -> None:
    with open_one() as store, _peers(where, 3) as peers:
        _submit_all(store)
        peers[_holder(store)].send_signal(signal.SIGKILL)
        _wait_until(lambda: _all_ended(store))
        _check_all_ended_once(store)
        assert any(isinstance(event, TaskResumed) for event in read_store(store))


def _stop_between_writes(peer: subprocess.Popen[str], where: str) -> None:
    """Stop a process. One that holds the lock of an SQLite file would stop all others with it."""
    for _ in range(100):
        peer.send_signal(signal.SIGSTOP)
        if "://" in where or _can_be_written(where):
            return
        peer.send_signal(signal.SIGCONT)
    raise AssertionError("it holds the lock whenever it is stopped")


def _can_be_written(path: str) -> bool:
    connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def test_a_worker_that_stalls_and_wakes_up_cannot_write(where: str, open_one: Open) -> None:
    with open_one() as store, _peers(where, 2) as peers:
        _submit_all(store)
        stalled = _holder(store)
        _stop_between_writes(peers[stalled], where)
        _wait_until(lambda: _all_ended(store))
        ended = len(list(read_store(store)))
        # Whatever it was doing when it was stopped is refused, and it works again: a task that
        # is offered to it alone is ended by it.
        for name, peer in peers.items():
            if name != stalled:
                peer.kill()
        peers[stalled].send_signal(signal.SIGCONT)
        event = TaskSubmitted(t_s=time.time(), task_id="later", agent="steady")
        store.submit(Submission(event=event)).result()
        _wait_until(lambda: _all_ended(store))
        later = list(read_store(store))[ended:]
        assert {getattr(event, "task_id", None) for event in later} == {"later"}
