"""What the live driver knows of tasks: opened, taken over, closed, and their journals."""

import asyncio
from collections.abc import Sequence

from steelyard.domain.events import (
    Event,
    JsonValue,
    TaskFinished,
    TaskStatus,
    TaskSubmitted,
)
from steelyard.errors import SteelyardError
from steelyard.fleet.state import FleetState
from steelyard.runtime.attempts import lost_attempt
from steelyard.runtime.journal import Journal
from steelyard.runtime.named_tasks import NamedTasks, ended_silently
from steelyard.runtime.open_tasks import OpenTasks, TaskTerms
from steelyard.runtime.recorder import Recorder
from steelyard.runtime.task_ids import TaskIds


class TaskDesk:
    """Opens and closes tasks; `steelyard.runtime.dispatcher.Dispatcher` runs their steps, too.

    Args:
        recorder: The door to state and log.

    Attributes:
        named: Tasks that only requests name.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._tasks = OpenTasks()
        self._ids = TaskIds()
        self.named = NamedTasks()

    @property
    def state(self) -> FleetState:
        """The fold of everything recorded so far."""
        return self._recorder.state

    def now_s(self) -> float:
        """What time is it on the log's clock?"""
        return self._recorder.now_s()

    def new_task_id(self) -> str:
        """An id for a task that nobody has named."""
        return self._ids.new()

    def open_task(
        self, task_id: str, agent: str, deadline_s: float | None, budget_usd: float | None
    ) -> None:
        """Record that a task has arrived; nothing happens when it is open already.

        Args:
            task_id: The task.
            agent: Its agent.
            deadline_s: Absolute deadline on the log's clock; None without one.
            budget_usd: Budget; None without one.
        """
        if self._tasks.terms(task_id) is not None:
            return
        self._tasks.open(
            task_id, TaskTerms(agent=agent, deadline_s=deadline_s, budget_usd=budget_usd)
        )
        self._recorder.record(
            TaskSubmitted(
                t_s=self.now_s(),
                task_id=task_id,
                agent=agent,
                deadline_s=deadline_s,
                budget_usd=budget_usd,
            )
        )

    def take_task(self, task_id: str, terms: TaskTerms, events: Sequence[Event]) -> Journal:
        """Go on with a task that this process has a lease for.

        Attempts that its last worker left open are recorded as lost: nobody knows how they ended,
        and their cost, if any, was never recorded.

        Args:
            task_id: The task.
            terms: Its terms, with the lease's number.
            events: Its journal.

        Returns:
            The journal, folded.
        """
        journal = Journal.of(events)
        self._tasks.open(task_id, terms, journal.next_step_id)
        if not self.state.has_task(task_id):
            self._recorder.restore(events)
        for step in journal.in_order():
            for attempt in sorted(step.open):
                self._recorder.record(
                    lost_attempt(self.now_s(), task_id, step.step_id, attempt), terms.fence
                )
            step.open.clear()
            if step.done and step.kind in {"llm", "tool"} and not step.error_code:
                self._tasks.step_submitted(task_id, step.step_id, step.parents)
                self._tasks.step_done(task_id, step.step_id)
        return journal

    def drop_task(self, task_id: str) -> None:
        """Forget a task that this process has no lease for any more; nothing is recorded."""
        self._tasks.close(task_id)
        self.state.forget_task(task_id)

    def close_task(
        self,
        task_id: str,
        status: TaskStatus,
        error: SteelyardError | None = None,
        result: JsonValue = None,
        *,
        wrapped_up: bool = False,
    ) -> TaskFinished:
        """Record that a task has ended.

        Returns:
            What was recorded; `durable` says when it is on disk.
        """
        terms = self._tasks.terms(task_id)
        self._tasks.close(task_id)
        event = TaskFinished(
            t_s=self.now_s(),
            task_id=task_id,
            status=status,
            error_code="" if error is None else error.code,
            error="" if error is None else str(error),
            result=result,
            wrapped_up=wrapped_up,
        )
        self._recorder.record(event, None if terms is None else terms.fence)
        return event

    @property
    def tasks_open(self) -> int:
        """How many tasks are open here? Those of `under_way` are not among them."""
        return len(self._tasks)

    def close_silent(self, since_s: float) -> int:
        """Close the tasks that requests had opened and of which nothing was heard since then.

        Args:
            since_s: Time on the log's clock.

        Returns:
            How many there were.
        """
        silent = self.named.silent_since(since_s)
        for task in silent:
            self._tasks.put_by(task.task_id)
            if task.told:
                self._recorder.record(ended_silently(self.now_s(), task), None)
            else:
                self.state.forget_task(task.task_id)
        return len(silent)

    def record(self, event: Event, fence: int | None) -> None:
        """Record what a task's own worker knows of it."""
        self._recorder.record(event, fence)

    async def durable(self, task_id: str, fence: int | None) -> None:
        """Wait until all events of a task are on disk; see `Recorder.durable`."""
        await self._recorder.durable(task_id, fence)

    async def journal(self, task_id: str) -> Sequence[Event]:
        """Which events has a task, in order?"""
        return await asyncio.wrap_future(self._recorder.log.journal(task_id))

    def task_terms(self, task_id: str) -> TaskTerms | None:
        """Agent, deadline and budget of an open task; None when it is not open."""
        return self._tasks.terms(task_id)

    def left_usd(self, task_id: str) -> float | None:
        """What is left of an open task's budget, in USD? None when it has none."""
        terms = self._tasks.terms(task_id)
        if terms is None or terms.budget_usd is None:
            return None
        return max(0.0, terms.budget_usd - self.state.committed_usd(task_id))

    def next_step_id(self, task_id: str) -> int:
        """Which number does the task's next step get?"""
        return self._tasks.next_step_id(task_id)

    def parents(self, task_id: str, step_id: int) -> tuple[int, ...]:
        """On which finished steps is a step built that is submitted now?"""
        return self._tasks.parents(task_id, step_id)
