"""Runs one task from its arrival to its end, and records both."""

from typing import Any, ParamSpec, TypeVar

import msgspec

from steelyard.domain.events import TaskStatus
from steelyard.errors import SteelyardError, TaskError
from steelyard.runtime.context import LlmClient, TaskContext
from steelyard.runtime.definitions import AgentTask
from steelyard.runtime.dispatcher import Dispatcher
from steelyard.runtime.open_tasks import TaskTerms

P = ParamSpec("P")
R = TypeVar("R")


class TaskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a task may take.

    Attributes:
        deadline_after_s: Seconds from arrival to the deadline; None without one.
        budget_usd: Budget; None without one.
    """

    deadline_after_s: float | None = None
    budget_usd: float | None = None


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended.

    Attributes:
        status: `succeeded` or `failed`.
        result: What it returned.
        error: Why it failed, one line; empty otherwise.
    """

    status: TaskStatus
    result: Any = None
    error: str = ""


class TaskRunner:
    """Runs tasks of one process.

    Thin for now: a task that is late runs on and counts as missed; nothing is resumed after a
    crash.

    Args:
        dispatcher: Places and runs steps.
        client: Asks the gateway.
        model: Model of LLM steps that name none.
    """

    def __init__(self, dispatcher: Dispatcher, client: LlmClient, model: str) -> None:
        self._dispatcher = dispatcher
        self._client = client
        self._model = model

    async def run(
        self,
        agent: AgentTask[TaskContext, P, R],
        task_id: str,
        limits: TaskLimits,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> TaskOutcome:
        """Run a task to its end.

        Args:
            agent: What to run.
            task_id: Unique id of the task.
            limits: Deadline and budget.
            args: The agent's arguments.
            kwargs: The agent's arguments by name.

        Returns:
            How it ended. A failure is a value here, whatever the agent raised.
        """
        arrival_s = self._dispatcher.now_s()
        after_s = limits.deadline_after_s
        terms = TaskTerms(
            agent=agent.name,
            deadline_s=None if after_s is None else arrival_s + after_s,
            budget_usd=limits.budget_usd,
        )
        self._dispatcher.open_task(task_id, terms.agent, terms.deadline_s, terms.budget_usd)
        context = TaskContext(task_id, terms, self._dispatcher, self._client, self._model)
        try:
            result = await agent.function(context, *args, **kwargs)
        except SteelyardError as error:
            self._dispatcher.close_task(task_id, "failed", error)
            return TaskOutcome(status="failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - the executor's boundary: agents raise anything
            failure = TaskError(f"agent {agent.name} raised {type(error).__name__}: {error}")
            self._dispatcher.close_task(task_id, "failed", failure)
            return TaskOutcome(status="failed", error=str(failure))
        except BaseException:
            self._dispatcher.close_task(task_id, "cancelled")
            raise
        self._dispatcher.close_task(task_id, "succeeded", result=result)
        return TaskOutcome(status="succeeded", result=result)
