"""What the store knows of tasks beside their events: who holds them, and what they wait for."""

from typing import Literal, get_args

import msgspec

from steelyard.domain.agent import AgentLimit
from steelyard.domain.events import Event, TaskSubmitted

# `queued`: the next free worker takes it. `running`: a worker holds it. `waiting`: it is parked,
# and nobody holds it, until its sleep is over, a signal comes, or its child has ended.
TaskState = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
STATES: tuple[TaskState, ...] = get_args(TaskState)
ENDED: frozenset[TaskState] = frozenset({"succeeded", "failed", "cancelled"})


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A task on its way into the store.

    Attributes:
        event: What is recorded.
        key: Chosen by the caller; a second submission with the same key is the first task.
        priority: Higher ones are taken first.
        worker: Who takes it at once; empty leaves it to the first free worker.
        lease_s: For how long, in seconds.
    """

    event: TaskSubmitted
    key: str = ""
    priority: int = 0
    worker: str = ""
    lease_s: float = 0.0


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's wish for work.

    Attributes:
        worker: Its name, unique in the store.
        agents: Agents whose tasks it can run, with their limits.
        count: Tasks it has room for.
        lease_s: Seconds for which it holds them, counted by the database.
        t_s: Time on the worker's clock, for the events of tasks taken over.
        wake: Whether to look first for parked tasks whose time has come.
    """

    worker: str
    agents: dict[str, AgentLimit]
    count: int
    lease_s: float
    t_s: float
    wake: bool = True


class Parking(msgspec.Struct, frozen=True, kw_only=True):
    """A task that only waits, on its way out of a worker.

    Attributes:
        task_id: The task.
        fence: Number of the worker's lease.
        after_s: Seconds after which it is to go on; None to wait for something else.
        signals: How many signals its wait knows; None when it waits for none.
        children: Ids of the children whose end it waits for.
    """

    task_id: str
    fence: int
    after_s: float | None = None
    signals: int | None = None
    children: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A task held by a worker.

    Attributes:
        task_id: The task.
        agent: Its agent.
        fence: Grows with every change of hands; writes under an older one are refused.
        events: The task's events up to now: its journal.
    """

    task_id: str
    agent: str
    fence: int
    events: tuple[Event, ...] = ()


class HeldTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker should know of a task that it holds.

    Attributes:
        task_id: The task.
        fence: Number of the worker's lease.
        cancelled: Somebody wants it to end.
        signals: How many signals were sent to it.
    """

    task_id: str
    fence: int
    cancelled: bool
    signals: int


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """A task in a list.

    Attributes:
        task_id: The task.
        agent: Its agent.
        state: What it is doing.
        priority: Higher ones are taken first.
        submitted_s: When it arrived, on the submitter's clock.
        worker: Who holds it; empty when nobody does.
        fence: How often it was taken by a worker.
        parent: Task that submitted it; empty without one.
    """

    task_id: str
    agent: str
    state: TaskState
    priority: int
    submitted_s: float
    worker: str
    fence: int
    parent: str
