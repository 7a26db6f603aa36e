"""Child tasks: tasks that a task submits, and whose results are its steps."""

from typing import Any, Protocol

from steelyard.domain.events import JsonValue, TaskFinished, TaskSubmitted
from steelyard.errors import ConfigError, StepFailedError
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskLimits, TaskTerms
from steelyard.runtime.steps import Slot


class ChildTasks(Protocol):
    """Runs tasks for tasks."""

    async def run_child(
        self, agent: AgentTask[Any, ..., Any], event: TaskSubmitted
    ) -> TaskFinished:
        """Submit a task, unless it is there already, and wait for its end."""
        ...


class Children:
    """Runs the children of one task.

    Args:
        task_id: The task.
        terms: Its terms.
        dispatcher: Tells the time.
        tasks: Runs child tasks; None where there is no task store.
    """

    def __init__(
        self,
        task_id: str,
        terms: TaskTerms,
        dispatcher: Dispatcher,
        tasks: ChildTasks | None,
    ) -> None:
        self._task_id = task_id
        self._terms = terms
        self._dispatcher = dispatcher
        self._children = tasks

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
            StepFailedError: It failed or was cancelled.
        """
        if self._children is None:
            raise ConfigError(
                f"task {self._task_id} cannot have children: it runs without a task store; "
                "submit it to a worker"
            )
        event = TaskSubmitted(
            t_s=self._dispatcher.now_s(),
            task_id=f"{self._task_id}.{slot.path}",
            agent=agent.name,
            deadline_s=limits.deadline_from(self._dispatcher.now_s(), self._terms.deadline_s),
            budget_usd=limits.budget_usd,
            arguments=arguments,
            parent=self._task_id,
        )
        ended = await self._children.run_child(agent, event)
        if ended.status != "succeeded":
            raise StepFailedError(
                f"child task {event.task_id} of agent {agent.name} {ended.status}: "
                f"{ended.error or 'no error was recorded'}"
            )
        return ended.result
