"""Child tasks: tasks that a task submits, and whose results are its steps."""

from typing import Any, Protocol

from steelyard.domain.events import JsonValue, TaskFinished, TaskSubmitted
from steelyard.errors import BudgetExceededError, ConfigError, StepFailedError
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.steps import Slot, TaskSteps
from steelyard.runtime.waits import Waits


class ChildTasks(Protocol):
    """Runs tasks for tasks."""

    async def run_child(
        self, agent: AgentTask[Any, ..., Any], event: TaskSubmitted, waits: Waits
    ) -> TaskFinished:
        """Submit a task, unless it is there already, and wait for its end.

        `waits` of the parent is told whether anybody runs the child.
        """
        ...

    async def retry_child(self, event: TaskSubmitted, cause: str) -> None:
        """Let a child that ended badly go on, since its parent was retried; once per cause."""
        ...

    async def cost_usd(self, task_id: str) -> float:
        """What have a task and its children cost so far, in USD?"""
        ...


class Children:
    """Runs the children of one task.

    Args:
        steps: The task's steps.
        terms: Its terms.
        dispatcher: Tells the time, and what is left of the budget.
        tasks: Runs child tasks; None where there is no task store.
    """

    def __init__(
        self,
        steps: TaskSteps,
        terms: TaskTerms,
        dispatcher: Dispatcher,
        tasks: ChildTasks | None,
    ) -> None:
        self._task_id = steps.task_id
        self._steps = steps
        self._terms = terms
        self._dispatcher = dispatcher
        self._tasks = tasks

    async def run(
        self,
        agent: AgentTask[Any, ..., Any],
        limits: TaskLimits,
        arguments: dict[str, JsonValue],
        slot: Slot,
    ) -> JsonValue:
        """Run a child to its end.

        Args:
            agent: What to run.
            limits: The child's.
            arguments: The agent's arguments by name.
            slot: The parent's step.

        Returns:
            The child's result.

        Raises:
            BudgetExceededError: It needed more than what was left of this task's budget.
            StepFailedError: It failed or was cancelled.
        """
        if self._tasks is None:
            raise ConfigError(
                f"task {self._task_id} cannot have children: it runs without a task store; "
                "submit it to a worker"
            )
        reserved_usd = await self._reserve(limits, slot)
        budget_usd = None if reserved_usd is None else reserved_usd + slot.charged_usd
        event = TaskSubmitted(
            t_s=self._dispatcher.now_s(),
            task_id=f"{self._task_id}.{slot.path}",
            agent=agent.name,
            deadline_s=limits.deadline_from(self._dispatcher.now_s(), self._terms.deadline_s),
            budget_usd=budget_usd,
            arguments=arguments,
            parent=self._task_id,
        )
        if retries := len(self._steps.journal.retries):
            await self._tasks.retry_child(event, f"{self._task_id} {retries}")
        ended = await self._tasks.run_child(agent, event, self._steps.waits)
        cost_usd = await self._tasks.cost_usd(event.task_id)
        self._steps.charge(slot, cost_usd - slot.charged_usd)
        if ended.status == "succeeded":
            return ended.result
        told = (
            f"child task {event.task_id} of agent {agent.name} {ended.status}: "
            f"{ended.error or 'no error was recorded'}"
        )
        if ended.error_code == BudgetExceededError.code and budget_usd != limits.budget_usd:
            # The child's own budget would have allowed it: this task's is what ended.
            raise BudgetExceededError(told)
        raise StepFailedError(told)

    async def _reserve(self, limits: TaskLimits, slot: Slot) -> float | None:
        """What may the child cost from here on? It is taken off this task's budget first.

        `reserved = min(own budget - spent before a retry, what is left of the parent's)`
        """
        if slot.reserved_usd is not None:
            return slot.reserved_usd
        own_usd = limits.budget_usd
        if own_usd is not None:
            own_usd = max(0.0, own_usd - slot.charged_usd)
        left_usd = self._dispatcher.left_usd(self._task_id)
        if left_usd is None:
            return own_usd
        reserved_usd = left_usd if own_usd is None else min(own_usd, left_usd)
        await self._steps.wait_begins(slot, None, reserved_usd)
        return reserved_usd
