"""Runs one task from its arrival, or from where it was left, to its end, and records both."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import msgspec

from steelyard.domain.events import JsonValue, TaskFinished, TaskPreempted, TaskStatus
from steelyard.errors import (
    BudgetExceededError,
    DeadlineExceededError,
    LeaseLostError,
    SteelyardError,
    StoreError,
    TaskError,
)
from steelyard.runtime.context import ChildTasks, LlmClient, TaskContext
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.inbox import Inbox
from steelyard.runtime.journal import WRAP_UP, Journal
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.steps import TaskSteps
from steelyard.store.tasks import Parking

__all__ = ["RunningTask", "StopReason", "TaskLimits", "TaskOutcome", "TaskRunner"]

P = ParamSpec("P")
R = TypeVar("R")

# `cancel`: the task ends. `leave`: another worker has it, or may have it; nothing is recorded.
# `park`: it only waits, and will go on, in whatever worker; nothing is recorded either.
StopReason = Literal["cancel", "leave", "park"]


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended.

    Attributes:
        status: `succeeded`, `failed` or `cancelled`.
        result: What it returned.
        error: Why it failed, one line; empty otherwise.
        wrapped_up: Whether the result is what `wrap_up` made of a part.
    """

    status: TaskStatus
    result: Any = None
    error: str = ""
    wrapped_up: bool = False


class RunningTask:
    """One run of a task, which others may stop.

    Args:
        agent: What to run.
        arguments: The agent's arguments by name.
        steps: Its steps.
        context: What the agent gets.
        inbox: Signals to the task.
    """

    def __init__(
        self,
        agent: AgentTask[Any, ..., Any],
        arguments: dict[str, JsonValue],
        steps: TaskSteps,
        context: TaskContext,
        inbox: Inbox,
    ) -> None:
        self.agent = agent
        self.arguments = arguments
        self.steps = steps
        self.context = context
        self.inbox = inbox
        self.is_child = False
        self.stopped: StopReason | None = None
        self.worker: asyncio.Task[Any] | None = None
        self.finished: TaskFinished | None = None
        self.parking: Parking | None = None

    @property
    def goes_on(self) -> bool:
        """Was it stopped to go on later, here or elsewhere?"""
        return self.stopped in {"leave", "park"}

    def check_not_stopped(self) -> None:
        """An agent that swallowed its cancellation is cancelled all the same."""
        if self.stopped is not None:
            raise asyncio.CancelledError

    def main_ends_s(self, deadline_s: float | None) -> float | None:
        """When is what runs now stopped at the latest? None without a deadline."""
        if deadline_s is None or self.steps.journal.preempted is not None:
            return deadline_s
        return deadline_s - self.agent.wrap_up_s

    def stop(self, reason: StopReason) -> None:
        """Cancel whatever the task is doing now, in the middle of a step, too.

        It performs no further step: what it does about being cancelled is its own affair.
        """
        if self.stopped is None:
            self.stopped = reason
            self.steps.closed = True
            if self.worker is not None:
                self.worker.cancel()


class TaskRunner:
    """Runs tasks of one process.

    Args:
        dispatcher: Places and runs steps.
        client: Asks the gateway.
        model: Model of LLM steps that name none.
        children: Runs child tasks; None where there is no task store.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        client: LlmClient,
        model: str,
        children: ChildTasks | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._client = client
        self._model = model
        self._children = children

    async def run(
        self,
        agent: AgentTask[TaskContext, P, R],
        task_id: str,
        limits: TaskLimits,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskOutcome:
        """Run a task to its end in this process alone; no other one takes it over.

        Args:
            agent: What to run.
            task_id: Unique id of the task.
            limits: Deadline and budget.
            args: The agent's arguments.
            kwargs: The agent's arguments by name.

        Returns:
            How it ended. A failure is a value here, whatever the agent raised.
        """
        terms = TaskTerms(
            agent=agent.name,
            deadline_s=limits.deadline_from(self._dispatcher.now_s()),
            budget_usd=limits.budget_usd,
        )
        self._dispatcher.open_task(task_id, terms.agent, terms.deadline_s, terms.budget_usd)
        arguments = agent.arguments(*args, **kwargs)
        running = self.prepare(agent, task_id, terms, Journal(), arguments)
        running.worker = asyncio.current_task()
        return await self.drive(running, terms)

    def prepare(
        self,
        agent: AgentTask[Any, ..., Any],
        task_id: str,
        terms: TaskTerms,
        journal: Journal,
        arguments: dict[str, JsonValue],
    ) -> RunningTask:
        """Make what a run needs; nothing runs yet.

        Args:
            agent: What to run.
            task_id: The task, open at the dispatcher.
            terms: Its terms.
            journal: What is recorded of it.
            arguments: The agent's arguments by name.

        Returns:
            The run.
        """
        steps = TaskSteps(task_id, terms.fence, journal, self._dispatcher)
        inbox = Inbox(journal)
        gateway = (self._client, self._model)
        context = TaskContext(steps, terms, self._dispatcher, gateway, self._children, inbox)
        return RunningTask(agent, arguments, steps, context, inbox)

    async def drive(self, running: RunningTask, terms: TaskTerms) -> TaskOutcome:
        """Run the agent to its end and record it.

        Args:
            running: The run.
            terms: The task's terms.

        Returns:
            How it ended.

        Raises:
            LeaseLostError: Another worker has the task.
            StoreError: The log is broken.
            asyncio.CancelledError: The run was stopped from outside; recorded unless it was left.
        """
        task_id, close = running.steps.task_id, self._dispatcher.close_task
        try:
            outcome, error = await self._outcome(running, terms)
            running.check_not_stopped()
        except asyncio.CancelledError:
            if not running.goes_on:
                running.finished = close(task_id, "cancelled")
            raise
        except BaseException:
            # The log is broken, the lease is lost, or the program ends: nothing can be recorded.
            self._dispatcher.drop_task(task_id)
            raise
        running.finished = close(
            task_id, outcome.status, error, outcome.result, wrapped_up=outcome.wrapped_up
        )
        return outcome

    async def _outcome(
        self, running: RunningTask, terms: TaskTerms
    ) -> tuple[TaskOutcome, SteelyardError | None]:
        agent = running.agent
        try:
            result = await self._main(running, terms)
        except (LeaseLostError, StoreError):
            raise
        except (DeadlineExceededError, BudgetExceededError) as error:
            if agent.wrap_up is None:
                return TaskOutcome(status="failed", error=str(error)), error
            return await self._wrap_up(running, terms, error, agent.wrap_up)
        except SteelyardError as error:
            return TaskOutcome(status="failed", error=str(error)), error
        except Exception as error:  # noqa: BLE001 - the executor's boundary: agents raise anything
            told = f"{type(error).__name__}: {error} ({_where(error)})"
            failure = TaskError(f"agent {agent.name} raised {told}")
            return TaskOutcome(status="failed", error=str(failure)), failure
        return TaskOutcome(status="succeeded", result=result), None

    async def _main(self, running: RunningTask, terms: TaskTerms) -> JsonValue:
        preempted = running.steps.journal.preempted
        if preempted is not None:
            kind = BudgetExceededError if preempted.cause == "budget" else DeadlineExceededError
            raise kind(f"task {running.steps.task_id} was stopped before: {preempted.cause}")
        agent = running.agent
        work = agent.function(running.context, **running.arguments)
        result = await self._in_time(running, terms.deadline_s, agent.wrap_up_s, work)
        running.steps.check_complete()
        return result

    async def _wrap_up(
        self,
        running: RunningTask,
        terms: TaskTerms,
        error: SteelyardError,
        wrap_up: Callable[[TaskContext], Awaitable[Any]],
    ) -> tuple[TaskOutcome, SteelyardError | None]:
        """Let the agent make a result of what is recorded, up to the deadline itself."""
        steps = running.steps
        if steps.journal.preempted is None:
            event = TaskPreempted(
                t_s=self._dispatcher.now_s(),
                task_id=steps.task_id,
                cause="budget" if isinstance(error, BudgetExceededError) else "deadline",
            )
            await steps.preempted(event)
            events = await self._dispatcher.journal(steps.task_id)
            steps.journal.update(Journal.of(events))
        try:
            with steps.branch(WRAP_UP):
                work = wrap_up(running.context)
                result = await self._in_time(running, terms.deadline_s, 0.0, work)
        except (LeaseLostError, StoreError):
            raise
        except Exception as second:  # noqa: BLE001 - the executor's boundary: agents raise anything
            told = TaskError(
                f"{error}; wrap_up of agent {running.agent.name} failed, too: {second}"
            )
            return TaskOutcome(status="failed", error=str(told)), error
        return TaskOutcome(status="succeeded", result=result, wrapped_up=True), error

    async def _in_time(
        self,
        running: RunningTask,
        deadline_s: float | None,
        reserve_s: float,
        work: Awaitable[JsonValue],
    ) -> JsonValue:
        """Await work, and cancel it in the middle of a step when its time is over."""
        left_s = None
        if deadline_s is not None:
            left_s = max(0.0, deadline_s - reserve_s - self._dispatcher.now_s())
        limit = asyncio.timeout(left_s)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceededError(
                f"task {running.steps.task_id} was not done by its deadline"
                + (f" less the {reserve_s:g} s of its wrap_up" if reserve_s else "")
                + "; its running step was stopped"
            ) from error


def _where(error: BaseException) -> str:
    """The line that raised: what an agent's author looks for first."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
