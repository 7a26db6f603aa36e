"""Tasks that only requests name: nobody says when they are over, so a long silence does."""

from collections import OrderedDict

import msgspec

from steelyard.domain.events import TaskFinished, TaskStatus
from steelyard.errors import SteelyardError


class Silent(msgspec.Struct):
    """A task of which nothing was heard for a while.

    Attributes:
        task_id: The task.
        ended_s: When its last request ended.
        status: How that request ended.
        error: Why, where it failed.
        told: Whether its end is recorded; not where a worker of ours has the task.
        requests: Its requests under way.
    """

    task_id: str
    ended_s: float = 0.0
    status: TaskStatus = "succeeded"
    error: SteelyardError | None = None
    told: bool = True
    requests: int = 0


class NamedTasks:
    """Tasks that were opened by a request, the longest silent first.

    >>> named = NamedTasks()
    >>> named.begin("t", told=True)
    >>> named.end("t", 5.0, "succeeded", None)
    >>> [one.task_id for one in named.silent_since(4.0)]
    []
    >>> [one.task_id for one in named.silent_since(5.0)]
    ['t']
    """

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Silent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._tasks

    def begin(self, task_id: str, *, told: bool) -> None:
        """A request of a task begins.

        Args:
            task_id: The task; unknown ones were opened by this request.
            told: Whether its end is to be recorded.
        """
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = Silent(task_id)
        task.requests += 1
        task.told = task.told and told

    def end(
        self, task_id: str, now_s: float, status: TaskStatus, error: SteelyardError | None
    ) -> None:
        """A request of a task has ended.

        Args:
            task_id: The task; nothing happens for one that is not known.
            now_s: Time on the log's clock.
            status: How it ended.
            error: Why, where it failed.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        task.requests -= 1
        task.ended_s, task.status, task.error = now_s, status, error
        self._tasks.move_to_end(task_id)

    def silent_since(self, t_s: float) -> list[Silent]:
        """Which tasks had no request after this time? They are forgotten here.

        Args:
            t_s: Time on the log's clock.

        Returns:
            The tasks, the longest silent first.
        """
        found: list[Silent] = []
        busy: list[str] = []
        for task in self._tasks.values():
            if task.requests > 0:
                busy.append(task.task_id)
            elif task.ended_s > t_s:
                break
            else:
                found.append(task)
        for task in found:
            del self._tasks[task.task_id]
        # What is under way is silent later than all who wait here: it need not be looked at again.
        for task_id in busy:
            self._tasks.move_to_end(task_id)
        return found


def ended_silently(now_s: float, task: Silent) -> TaskFinished:
    """The end of a task of which nothing was heard for a while: as that of its last request.

    Args:
        now_s: Time on the log's clock.
        task: The task.
    """
    return TaskFinished(
        t_s=now_s,
        task_id=task.task_id,
        status=task.status,
        error_code="" if task.error is None else task.error.code,
        error="" if task.error is None else str(task.error),
        ended_s=task.ended_s,
    )
