"""What did every step and task cost, and did it keep its promises? A fold of the event log."""

import math
from collections.abc import Iterable

import msgspec

from steelyard.domain.decision import Decision
from steelyard.domain.events import (
    AttemptFinished,
    AttemptOutcome,
    AttemptStarted,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    RequestServed,
    StepPlaced,
    StepRecorded,
    StepRefused,
    TaskFinished,
    TaskRetried,
    TaskStatus,
    TaskSubmitted,
    Usage,
    parts,
)
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import Step
from steelyard.ledger.rent import PoolRent


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished attempt.

    Attributes:
        step: The step.
        decision: Where it was placed and what was expected.
        placed_s: When it was placed, on the log's clock.
        started_s: When it started; None if it never did.
        finished_s: When it ended.
        outcome: How it ended.
        usage: What it used.
        cost_usd: What that cost.
        error_code: Why it failed, empty otherwise.
    """

    step: Step
    decision: Decision
    placed_s: float
    started_s: float | None
    finished_s: float
    outcome: AttemptOutcome
    usage: Usage
    cost_usd: float
    error_code: str

    @property
    def latency_s(self) -> float:
        """Seconds from placement to end, queueing included."""
        return self.finished_s - self.placed_s


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished task.

    Attributes:
        task_id: The task.
        agent: Its agent.
        submitted_s: When it arrived.
        finished_s: When it ended.
        deadline_s: Its deadline; None without one.
        budget_usd: Its budget; None without one.
        status: How it ended.
        cost_usd: Cost of all its attempts, failed ones included.
        children_usd: Cost of its children, which have records of their own.
        error_code: Why it failed, empty otherwise.
    """

    task_id: str
    agent: str
    submitted_s: float
    finished_s: float
    deadline_s: float | None
    budget_usd: float | None
    status: TaskStatus
    cost_usd: float
    error_code: str
    children_usd: float = 0.0

    @property
    def met_slo(self) -> bool:
        """Did it succeed, in time and inside its budget?"""
        in_time = self.deadline_s is None or self.finished_s <= self.deadline_s
        whole_usd = self.cost_usd + self.children_usd
        in_budget = self.budget_usd is None or whole_usd <= self.budget_usd
        return self.status == "succeeded" and in_time and in_budget


class OpenTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task that has not ended.

    Attributes:
        task_id: The task.
        agent: Its agent.
        submitted_s: When it arrived.
        deadline_s: Its deadline; None without one.
        budget_usd: Its budget; None without one.
        cost_usd: Cost of its attempts and children up to now.
        under_way: Whether one of its attempts has not ended.
    """

    task_id: str
    agent: str
    submitted_s: float
    deadline_s: float | None
    budget_usd: float | None
    cost_usd: float
    under_way: bool


class Ledger:
    """The books of a log, complete after every event applied.

    Two ledgers of the same log are equal.
    """

    def __init__(self) -> None:
        self.pools: dict[str, PoolSpec] = {}
        self.rents: dict[str, PoolRent] = {}
        self.attempts: list[AttemptRecord] = []
        self.tasks: list[TaskRecord] = []
        self.refused: list[StepRefused] = []
        self._submitted: dict[str, TaskSubmitted] = {}
        self._spent_usd: dict[str, list[float]] = {}
        self._children_usd: dict[str, list[float]] = {}
        self._placed: dict[tuple[str, int, int], StepPlaced] = {}
        self._started_s: dict[tuple[str, int, int], float] = {}
        self._first_s = math.inf
        self._last_s = -math.inf

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Ledger":
        """The books of a whole log.

        Args:
            events: The log, in order.

        Returns:
            The ledger.
        """
        ledger = cls()
        for event in events:
            ledger.apply(event)
        return ledger

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ledger):
            return NotImplemented
        mine = (self.pools, self.attempts, self.tasks, self.refused)
        return mine == (other.pools, other.attempts, other.tasks, other.refused)

    __hash__ = None  # type: ignore[assignment]

    def apply(self, event: Event) -> None:
        """Take one event into the books.

        Args:
            event: The next event of the log.
        """
        told = parts(event) if isinstance(event, RequestServed) else (event,)
        for one in told:
            self._apply(one)

    def _apply(self, event: Event) -> None:
        match event:
            case PoolAdded() | PoolRemoved() | ReplicaChanged():
                self._change_fleet(event)
            case TaskSubmitted():
                self._submitted[event.task_id] = event
                self._first_s = min(self._first_s, event.t_s)
            case StepPlaced():
                self._placed[(event.step.task_id, event.step.step_id, event.step.attempt)] = event
            case StepRefused():
                self.refused.append(event)
            case AttemptStarted():
                self._started_s[(event.task_id, event.step_id, event.attempt)] = event.t_s
            case AttemptFinished():
                self._close_attempt(event)
            case StepRecorded():
                self._charge_child(event)
            case TaskRetried():
                self._open_again(event)
            case TaskFinished():
                self._close_task(event)
            case _:
                pass

    def _change_fleet(self, event: PoolAdded | PoolRemoved | ReplicaChanged) -> None:
        if isinstance(event, PoolAdded):
            self.pools[event.spec.name] = event.spec
            rent = self.rents.setdefault(event.spec.name, PoolRent())
            rent.set_spec(event.t_s, event.spec)
        elif event.pool in self.rents:
            if isinstance(event, PoolRemoved):
                self.rents[event.pool].end(event.t_s)
            else:
                self.rents[event.pool].set_rented(event.t_s, event.replica, rented=event.rented)

    def _close_attempt(self, event: AttemptFinished) -> None:
        key = (event.task_id, event.step_id, event.attempt)
        placed = self._placed.pop(key, None)
        if placed is None:
            # The attempt was given up as lost, and its end came after all: booked once already.
            return
        self._spent_usd.setdefault(event.task_id, []).append(event.cost_usd)
        self.attempts.append(
            AttemptRecord(
                step=placed.step,
                decision=placed.decision,
                placed_s=placed.t_s,
                started_s=self._started_s.pop(key, None),
                finished_s=event.t_s,
                outcome=event.outcome,
                usage=event.usage,
                cost_usd=event.cost_usd,
                error_code=event.error_code,
            )
        )

    def _close_task(self, event: TaskFinished) -> None:
        submitted = self._submitted.pop(event.task_id, None)
        if submitted is None:
            return
        self._last_s = max(self._last_s, event.t_s)
        self.tasks.append(
            TaskRecord(
                task_id=event.task_id,
                agent=submitted.agent,
                submitted_s=submitted.t_s,
                finished_s=event.finished_s,
                deadline_s=submitted.deadline_s,
                budget_usd=submitted.budget_usd,
                status=event.status,
                cost_usd=math.fsum(self._spent_usd.pop(event.task_id, [])),
                error_code=event.error_code,
                children_usd=math.fsum(self._children_usd.pop(event.task_id, [])),
            )
        )

    def _charge_child(self, event: StepRecorded) -> None:
        if event.cost_usd:
            self._children_usd.setdefault(event.task_id, []).append(event.cost_usd)

    def _open_again(self, event: TaskRetried) -> None:
        """An ended task goes on: its record comes again, with all that it cost."""
        found = next((one for one in reversed(self.tasks) if one.task_id == event.task_id), None)
        if found is None:
            return
        self.tasks.remove(found)
        self._submitted[event.task_id] = TaskSubmitted(
            t_s=found.submitted_s,
            task_id=found.task_id,
            agent=found.agent,
            deadline_s=event.deadline_s,
            budget_usd=event.budget_usd,
        )
        self._spent_usd[event.task_id] = [found.cost_usd]
        self._children_usd[event.task_id] = [found.children_usd]

    def open_tasks(self) -> tuple[OpenTask, ...]:
        """Which tasks have not ended, and what did they cost up to now?"""
        under_way = {task_id for task_id, _, _ in self._placed}
        return tuple(
            OpenTask(
                task_id=task_id,
                agent=event.agent,
                submitted_s=event.t_s,
                deadline_s=event.deadline_s,
                budget_usd=event.budget_usd,
                under_way=task_id in under_way,
                cost_usd=math.fsum(
                    (*self._spent_usd.get(task_id, ()), *self._children_usd.get(task_id, ()))
                ),
            )
            for task_id, event in sorted(self._submitted.items())
        )

    @property
    def first_s(self) -> float:
        """When the first task arrived, on the log's clock; 0 without tasks."""
        return self._first_s if self.tasks else 0.0

    @property
    def last_s(self) -> float:
        """When the last task ended, on the log's clock; not before `first_s`."""
        return max(self._last_s, self._first_s) if self.tasks else 0.0

    @property
    def span_s(self) -> float:
        """Seconds from the first task's arrival to the last task's end."""
        return max(0.0, self._last_s - self._first_s) if self.tasks else 0.0

    @property
    def cost_usd(self) -> float:
        """Cost of all attempts, in USD."""
        return math.fsum(attempt.cost_usd for attempt in self.attempts)

    @property
    def rent_usd(self) -> float:
        """What was rented over `span_s` cost, used or idle, plus what vendors charged."""
        rents = [rent.usd(self.first_s, self.last_s) for rent in self.rents.values()]
        by_token = [
            attempt.cost_usd
            for attempt in self.attempts
            if self.pools[attempt.decision.pool].token_price is not None
        ]
        return math.fsum(rents + by_token)

    @property
    def slo_attainment_frac(self) -> float:
        """Share of finished tasks that met every SLO; 0 without tasks."""
        met = sum(task.met_slo for task in self.tasks)
        return met / len(self.tasks) if self.tasks else 0.0

    @property
    def goodput_per_s(self) -> float:
        """Tasks per second that met every SLO."""
        met = sum(task.met_slo for task in self.tasks)
        return met / self.span_s if self.span_s > 0.0 else 0.0
