"""What `steelyard tasks ...` does with a store."""

import math
import time
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from steelyard.cli.limits import check_id
from steelyard.domain.events import AttemptFinished, Event, SignalSent, StepRecorded
from steelyard.errors import ConfigError, StoreError, TaskNotFoundError
from steelyard.runtime.journal import Journal
from steelyard.runtime.open_tasks import TaskLimits
from steelyard.runtime.retrying import retried, submitted_anew
from steelyard.store.event_store import EventStore
from steelyard.store.open_store import open_store
from steelyard.store.tasks import ENDED, STATES, Submission, TaskRow

_WATCH_PAUSE_S = 0.2
_MAX_CELL_CHARS = 60


def run_list(where: str, state: str, limit: int, *, as_json: bool) -> None:
    """Print tasks, the newest first.

    Args:
        where: The store.
        state: Only those in this state; empty for all.
        limit: At most so many.
        as_json: One JSON object per line instead of a table.

    Raises:
        ConfigError: There is no such state.
    """
    if state and state not in STATES:
        raise ConfigError(f"--state {state!r} is no state; take one of {', '.join(STATES)}")
    with _existing(where) as store:
        rows = store.tasks(state=state, limit=limit).result()
    if as_json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
        return
    table = Table("task", "agent", "state", "priority", "worker", "times taken")
    for row in rows:
        table.add_row(
            row.task_id, row.agent, row.state, str(row.priority), row.worker, str(row.fence)
        )
    Console(markup=False).print(table)


def run_show(where: str, task_id: str, *, as_json: bool) -> None:
    """Print one task with its steps.

    Args:
        where: The store.
        task_id: The task.
        as_json: One JSON object instead of a table.
    """
    with _existing(where) as store:
        row = _row(store, task_id)
        events = store.journal(task_id).result()
        cost_usd = store.cost_usd(task_id).result()
    journal = Journal.of(events)
    costs_usd = _step_costs_usd(events)
    if as_json:
        told = {
            "task": row,
            "cost_usd": cost_usd,
            "finished": journal.finished,
            "steps": journal.in_order(),
            "step_costs_usd": costs_usd,
        }
        print(msgspec.json.encode(told, enc_hook=sorted).decode())
        return
    table = Table("step", "place", "kind", "name", "attempts", "cost (USD)", "result")
    for step in journal.in_order():
        result = step.error or (msgspec.json.encode(step.result).decode() if step.done else "...")
        table.add_row(
            *(str(step.step_id), step.path, step.kind, step.name, str(step.attempts)),
            f"{costs_usd[step.step_id]:.8f}" if step.step_id in costs_usd else "",
            result[:_MAX_CELL_CHARS],
        )
    Console(markup=False).print(
        f"task {task_id}: agent {row.agent}, {row.state}, cost {cost_usd:.8f} USD with its children"
    )
    Console(markup=False).print(table)
    if journal.finished is not None and journal.finished.error:
        print(journal.finished.error)


def run_watch(where: str, task_id: str, *, as_json: bool) -> None:
    """Print a task's events as they come, until it has ended.

    Args:
        where: The store.
        task_id: The task.
        as_json: Whole events; their kind and time otherwise.
    """
    with _existing(where) as store:
        shown = 0
        while True:
            row = _row(store, task_id)
            events = store.journal(task_id).result()
            for event in events[shown:]:
                print(_line(event, as_json=as_json), flush=True)
            shown = len(events)
            if row.state in ENDED:
                return
            time.sleep(_WATCH_PAUSE_S)


def run_cancel(where: str, task_id: str, *, as_json: bool = False) -> None:
    """Ask for a task's end.

    Args:
        where: The store.
        task_id: The task.
        as_json: One JSON object instead of a sentence.
    """
    with _existing(where) as store:
        row = _row(store, task_id)
        asked = store.cancel(task_id, time.time()).result()
    words = "is being cancelled" if asked else f"nothing to do, it is {row.state}"
    _told(f"{task_id}: {words}", {"task_id": task_id, "cancelled": asked}, as_json=as_json)


def run_signal(where: str, task_id: str, name: str, value: str, *, as_json: bool = False) -> None:
    """Send a value to a task.

    Args:
        where: The store.
        task_id: The task.
        name: Name of the signal.
        value: JSON.
        as_json: One JSON object instead of a sentence.

    Raises:
        ConfigError: The value is no JSON, or the task has ended.
    """
    try:
        decoded = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise ConfigError(f"signal {name}: value {value!r} is no JSON ({error})") from error
    with _existing(where) as store:
        row = _row(store, task_id)
        if row.state in ENDED:
            raise ConfigError(f"task {task_id} has ended ({row.state}); it takes no signal {name}")
        store.append(SignalSent(t_s=time.time(), task_id=task_id, name=name, value=decoded))
        store.durable().result()
    told = {"task_id": task_id, "signal": name}
    _told(f"{task_id}: signal {name} sent", told, as_json=as_json)


def run_retry(where: str, task_id: str, limits: TaskLimits, *, as_json: bool = False) -> None:
    """Let an ended task go on from where it failed.

    Args:
        where: The store.
        task_id: An ended task.
        limits: New deadline and budget; None for those that it had.
        as_json: One JSON object instead of a sentence.

    Raises:
        ConfigError: The task has not ended, or has succeeded.
    """
    with _existing(where) as store:
        row = _row(store, task_id)
        journal = Journal.of(store.journal(task_id).result())
        event = retried(task_id, journal, limits, time.time())
        store.retry(event).result()
    kept = sum(step.done and not step.error_code for step in journal.in_order())
    words = (
        f"{task_id}: queued, with {kept} steps done; `steelyard run FILE.py` or a worker of agent "
        f"{row.agent} goes on"
    )
    _told(words, {"task_id": task_id, "agent": row.agent, "steps_done": kept}, as_json=as_json)


def run_again(
    where: str, task_id: str, new_id: str, limits: TaskLimits, *, as_json: bool = False
) -> None:
    """Submit a task's arguments again, as a new task.

    Args:
        where: The store.
        task_id: An ended task.
        new_id: Id of the new one; empty makes one.
        limits: New deadline and budget; None for those that it had.
        as_json: One JSON object instead of a sentence.

    Raises:
        ConfigError: The task has not ended.
    """
    if new_id:
        check_id("--id", new_id)
    chosen = new_id or f"{task_id}-{uuid.uuid4().hex[:6]}"
    with _existing(where) as store:
        row = _row(store, task_id)
        if row.state not in ENDED:
            raise ConfigError(f"task {task_id} is {row.state}; cancel it, or wait for its end")
        journal = Journal.of(store.journal(task_id).result())
        event = submitted_anew(chosen, journal, limits, time.time())
        store.submit(Submission(event=event, priority=row.priority)).result()
    words = f"{chosen}: queued; `steelyard run FILE.py` or a worker of agent {row.agent} runs it"
    _told(words, {"task_id": chosen, "agent": row.agent, "steps_done": 0}, as_json=as_json)


def _told(words: str, told: Mapping[str, object], *, as_json: bool) -> None:
    print(msgspec.json.encode(told).decode() if as_json else words)


@contextmanager
def _existing(where: str) -> Generator[EventStore, None, None]:
    """Open a store that is there: looking must not make one."""
    if "://" not in where and not Path(where).is_file():
        raise StoreError(f"store {where} does not exist; give --store, or run a task first")
    with open_store(where) as store:
        yield store


def _row(store: EventStore, task_id: str) -> TaskRow:
    rows = store.tasks(task_id=task_id).result()
    if not rows:
        raise TaskNotFoundError(
            f"task {task_id} is not in {store.where}; `steelyard tasks list` shows those that are"
        )
    return rows[0]


def _step_costs_usd(events: tuple[Event, ...]) -> dict[int, float]:
    """What each step cost, all its attempts together, or its child; others are left out."""
    costs_usd: dict[int, list[float]] = {}
    for event in events:
        match event:
            case AttemptFinished() | StepRecorded(kind="child"):
                costs_usd.setdefault(event.step_id, []).append(event.cost_usd)
            case _:
                pass
    return {step_id: math.fsum(each) for step_id, each in costs_usd.items()}


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(event).decode()
    told = msgspec.to_builtins(event)
    step = told.get("step") or told
    parts = [
        time.strftime("%H:%M:%S", time.localtime(event.t_s)),
        told["type"].replace("_", " "),
        *(str(step[key]) for key in ("kind", "name", "outcome", "status") if key in step),
        *(str(told[key]) for key in ("error",) if told.get(key)),
    ]
    return " ".join(parts)
